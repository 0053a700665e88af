"""Evaluate a challenger against the champion, on loans that neither was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from peerloan.book import Book, DuplicateRows, read_loans
from peerloan.formatting import signed
from peerloan.model import probabilities
from peerloan.registry import Bundle
from peerloan.stats.arrays import Numbers
from peerloan.stats.bootstrap import (
    ChallengerVerdict,
    FigureComparison,
    ModelScores,
    judge_challenger,
)


def evaluate_challenger(champion: Bundle, challenger: Bundle, test_book: Book) -> ChallengerVerdict:
    """Score a book by both versions and compare the scores. Both must be able to read every row.

    Raises BookError, or ValueError if the book does not have both late and on-time loans.
    """
    margins: tuple[list[Numbers], list[Numbers]] = ([], [])
    late, duplicates = [], DuplicateRows()
    for part in test_book.parts():
        old, new = (
            read_loans(bundle.definition, part, label=True) for bundle in (champion, challenger)
        )
        margins[0].append(champion.score_many(old.loans)[0])
        margins[1].append(challenger.score_many(new.loans)[0])
        late.append(np.asarray(old.labels, dtype=np.float64))
        # Rows are duplicates by the champion's fields, as in `peerloan models compare`.
        duplicates.add(old.loans, old.labels)
    before, after = (
        ModelScores(scores, probabilities(scores)) for scores in map(np.concatenate, margins)
    )
    return judge_challenger(before, after, np.concatenate(late), duplicates.groups())


def verdict_json(verdict: ChallengerVerdict) -> dict[str, Any]:
    """Convert the figures to the fields of an event."""
    return {
        "verdict": verdict.verdict,
        "loans": verdict.loans,
        "late": verdict.late,
        "auc": _figure_json(verdict.auc),
        "brier": _figure_json(verdict.brier),
        "log_loss": _figure_json(verdict.log_loss),
    }


def verdict_sentence(verdict: ChallengerVerdict) -> str:
    """Describe the figures in a sentence."""
    figures = [("AUC", verdict.auc), ("log loss", verdict.log_loss), ("Brier score", verdict.brier)]
    shown = "; ".join(
        f"{name} {figure.challenger:.4f} ({signed(figure.difference.value, 4)}: "
        f"{signed(figure.difference.low, 4)} to {signed(figure.difference.high, 4)})"
        for name, figure in figures
    )
    return (
        f"on the newest {verdict.loans:,} loans ({verdict.late:,} late), with the difference from "
        f"the champion and its 95 % interval: {shown}"
    )


def _figure_json(figure: FigureComparison) -> dict[str, Any]:
    return figure._asdict() | {"difference": figure.difference._asdict()}
