"""Score books, and record the decisions in the ledger."""

from peerloan.scoring.job import ADDED, REASON_COLUMNS, ScoringResult, score_book

__all__ = ["ADDED", "REASON_COLUMNS", "ScoringResult", "score_book"]
