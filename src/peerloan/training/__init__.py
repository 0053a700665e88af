"""Training: from a book to a bundle in the store."""
