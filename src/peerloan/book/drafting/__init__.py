"""Drafting a loan definition from a book: kinds, ranges, levels and the label."""
