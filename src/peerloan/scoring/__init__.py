"""Whole books: scoring them, and recording what was decided."""

from peerloan.scoring.job import ADDED, REASON_COLUMNS, Scored, score_book

__all__ = ["ADDED", "REASON_COLUMNS", "Scored", "score_book"]
