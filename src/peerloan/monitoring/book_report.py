"""Monitor a book: drift of its loans from a version's reference, and performance on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peerloan.book import (
    Book,
    BookDoubts,
    CheckedPart,
    DoubtCollector,
    check_columns,
    read_labels,
    read_loans,
)
from peerloan.book.cells import show_cells
from peerloan.formatting import plural
from peerloan.loan import Label
from peerloan.loan.labels import expected_label
from peerloan.monitoring.alerts.rules import Rules
from peerloan.monitoring.counting.counts import BinCounter
from peerloan.monitoring.performance import Scores
from peerloan.monitoring.window_metrics import WindowMetrics, window_metrics
from peerloan.registry import Bundle
from peerloan.stats.arrays import Codes, Numbers


@dataclass(frozen=True)
class BookOutcomes:
    """Outcomes in a book: numbers of the scored loans whose outcome is known, missing or invalid.

    `example` describes the first invalid outcome.
    """

    known: int
    missing: int
    wrong: int
    example: str = ""

    def lines(self) -> list[str]:
        """Describe the loans without an outcome in sentences."""
        lines = []
        if self.missing:
            lines.append(
                f"{plural(self.missing, 'loan')} without an outcome: part of drift and estimates, "
                "but not of realised figures (which are biased if late loans are reported first)"
            )
        if self.wrong:
            lines.append(
                f"{plural(self.wrong, 'loan')} with an invalid outcome, not part of realised "
                f"figures: {self.example}"
            )
        return lines

    def to_json(self) -> dict[str, int]:
        """Return the counts as they are in JSON."""
        return {"known": self.known, "missing": self.missing, "wrong": self.wrong}


@dataclass(frozen=True)
class MonitoredBook:
    """Figures of a book, its outcomes (None without their column), and doubts about values."""

    figures: WindowMetrics
    outcomes: BookOutcomes | None
    doubts: BookDoubts


def monitor_book(
    book: Book,
    bundle: Bundle,
    limits: Rules,
    progress: Callable[[float], None] = lambda _done: None,
) -> MonitoredBook | None:
    """Measure drift and performance on a book. Raises BookError.

    Returns None if no loan in it can be scored. Outcomes are used if the book has the label's
    column. A loan whose outcome is missing or invalid is part of drift and estimates only.
    """
    definition = bundle.definition
    notes = check_columns(definition, book)
    counting = BinCounter.of(bundle)
    counts = counting.empty()
    doubts = DoubtCollector(book.name, definition, True, bundle.profile.usual_ranges())
    labels = _Labels(definition.label) if definition.label.column in book.columns else None
    margins: list[Numbers] = []
    rejected = 0
    for part in book.parts(progress):
        batch = read_loans(definition, part)
        scores = bundle.score_many(batch.loans)[0]
        groups = np.zeros(len(scores), dtype=np.int64)
        for part_counts in counting.count(batch.loans, scores, groups).values():
            counts.add(part_counts)
        doubts.add(batch)
        if labels is not None:
            labels.add(batch)
        margins.append(scores)
        rejected += part.size - batch.loans.size
    if not counts.loans:
        return None
    all_margins = np.concatenate(margins)
    realised = None
    if labels is not None:
        late = np.concatenate(labels.codes)
        if (is_known := late >= 0).any():
            realised = Scores.of(all_margins[is_known], late[is_known])
    book_scores = Scores.of(all_margins)
    figures = window_metrics(
        bundle, counting, limits, counts, book_scores, realised, rejected, notes
    )
    outcomes = None if labels is None else labels.outcomes()
    return MonitoredBook(figures, outcomes, doubts.result())


class _Labels:
    """The labels of a book's valid loans, collected while the book is read."""

    def __init__(self, label: Label) -> None:
        self._label = label
        self._example = ""
        self.codes: list[Codes] = []

    def add(self, batch: CheckedPart) -> None:
        """Add the labels of a part's valid loans."""
        codes, column = read_labels(self._label, batch.part)
        self.codes.append(codes[batch.good])
        wrong = np.flatnonzero((codes == -2) & batch.good)
        if len(wrong) and not self._example:
            row = batch.part.numbers[wrong[0]]
            self._example = (
                f"row {row}, {self._label.column}: expected {expected_label(self._label)}, "
                f"given {show_cells(column, wrong[:1])[0]}"
            )

    def outcomes(self) -> BookOutcomes:
        """Count the outcomes."""
        codes = np.concatenate(self.codes)
        missing, wrong = int(np.count_nonzero(codes == -1)), int(np.count_nonzero(codes == -2))
        return BookOutcomes(len(codes) - missing - wrong, missing, wrong, self._example)
