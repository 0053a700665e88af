"""Whole books: scoring them, and recording what was decided."""

from peerloan.scoring.books import ADDED, REASON_COLUMNS, Scored, score_book

__all__ = ["ADDED", "REASON_COLUMNS", "Scored", "score_book"]
