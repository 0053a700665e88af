"""Watching a whole book: how its loans differ from those that a version was trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from peerloan.book import Book, check_columns, read_loans
from peerloan.model import Bundle
from peerloan.monitoring.counts import Counting
from peerloan.monitoring.figures import Watched, watched
from peerloan.monitoring.performance import Scores
from peerloan.monitoring.rules import Rules


def watch_book(
    book: Book,
    bundle: Bundle,
    limits: Rules,
    progress: Callable[[float], None] = lambda _done: None,
) -> Watched | None:
    """Count a book and say how its loans have moved, and how good the version is on them; None if
    no loan of it can be scored. Raises BookError.

    Outcomes are used where the book has the label's column.
    """
    definition = bundle.definition
    labelled = definition.label.column in book.columns
    notes = check_columns(definition, book)
    counting = Counting.of(bundle)
    counts = counting.nothing()
    margins, late = [], []
    rejected = 0
    for part in book.parts(progress):
        batch = read_loans(definition, part, label=labelled)
        own = bundle.score_many(batch.loans)[0]
        for each in counting.count(batch.loans, own, np.zeros(len(own), dtype=np.int64)).values():
            counts.add(each)
        margins.append(own)
        if batch.labels is not None:
            late.append(batch.labels)
        rejected += part.size - batch.loans.size
    if not counts.loans:
        return None
    every = np.concatenate(margins)
    scores = Scores.of(every, np.concatenate(late) if late else None)
    outcomes = scores if late else None
    return watched(bundle, counting, limits, counts, scores, outcomes, rejected, notes)
