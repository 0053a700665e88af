"""Checks of a whole book: wrong values, and values that are unusual without being wrong."""
