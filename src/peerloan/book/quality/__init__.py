"""Check a book: wrong values, and values that are valid but unusual."""
