"""Drafting a loan definition from a table."""

from __future__ import annotations

from peerloan.book.source import Book


def draft_definition(book: Book, label: str, late: str | None = None) -> str:
    """A definition in TOML that fits the book, with its doubts as comments; raises BookError."""
    raise NotImplementedError
