"""Watching a whole book: how its loans differ from those that a version was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peerloan.book import Book, check_columns, read_loans
from peerloan.loan import Codes, Numbers
from peerloan.model import Bundle, probabilities
from peerloan.monitoring import rules
from peerloan.monitoring.bins import NEW, Bins, bins_of
from peerloan.monitoring.drift import Psi, psi
from peerloan.monitoring.estimates import Estimate
from peerloan.monitoring.performance import (
    Calibration,
    Estimated,
    Realised,
    Scores,
)
from peerloan.monitoring.rules import Rules, Spoken

# Values that no bin of the reference has are named up to so many.
_NAMED = 10


@dataclass(frozen=True)
class Drift:
    """A feature, or the probability: bins by name with their counts and the reference's shares;
    PSI, the share of missing values and the reference's own; values that the reference did not
    have, the most frequent first.
    """

    name: str
    bins: list[str]
    counts: list[int]
    reference: list[float]
    psi: Psi
    missing: Estimate
    reference_missing: float
    strange: list[tuple[str, int]]


@dataclass(frozen=True)
class Watched:
    """What is said of a book, or of another window: figures, and the rules that spoke."""

    version: str
    loans: int
    rejected: int
    features: list[Drift]
    score: Drift
    estimated: Estimated
    realised: Realised | None
    calibration: Calibration | None
    spoken: list[Spoken]
    notes: list[str]


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
    columns = [*bundle.profile.columns, bundle.profile.probability]
    binned = [bins_of(column) for column in columns]
    counts = [np.zeros(len(shares), dtype=np.int64) for _, shares in binned]
    strange: list[Counter[str]] = [Counter() for _ in columns]
    margins, late = [], []
    rejected = 0
    for part in book.parts(progress):
        batch = read_loans(definition, part, label=labelled)
        own = bundle.score_many(batch.loans)[0]
        values = [batch.loans.columns[name] for name in definition.names]
        for i, column in enumerate([*values, probabilities(own)]):
            counts[i] += binned[i][0].counts(column)
            strange[i].update(binned[i][0].strange(column))
        margins.append(own)
        if batch.labels is not None:
            late.append(batch.labels)
        rejected += part.size - batch.loans.size
    scored = np.concatenate(margins) if margins else np.array([])
    if not len(scored):
        return None
    every = [
        _drift(column.name, *each, number, named, bundle.profile.loans, column.missing)
        for column, each, number, named in zip(columns, binned, counts, strange, strict=True)
    ]
    scores = Scores.of(scored, np.concatenate(late) if late else None)
    return _watched(bundle, limits, scores, every, rejected, notes)


def _watched(
    bundle: Bundle,
    limits: Rules,
    scores: Scores,
    every: list[Drift],
    rejected: int,
    notes: list[str],
) -> Watched:
    *features, score = every
    policy = bundle.policy
    estimated = scores.estimated(policy)
    realised = calibration = None
    if scores.late is not None:
        realised, calibration = scores.realised(policy), scores.calibration(policy)
    loans = int(scores.loans.sum())
    spoken = [
        *rules.of_drift(limits, {each.name: each.psi for each in features}, score.psi),
        *rules.of_levels(
            limits,
            {
                each.name: Estimate.of_share(each.counts[-2], loans)
                for each in features
                if each.bins[-2] == NEW
            },
        ),
        *rules.of_performance(estimated, realised, bundle.manifest.intervals.get("auc")),
        *(rules.of_calibration(limits, calibration) if calibration else ()),
    ]
    return Watched(
        bundle.version,
        *(loans, rejected, features, score, estimated, realised, calibration, spoken, notes),
    )


def _drift(
    name: str,
    bins: Bins,
    shares: Numbers,
    counts: Codes,
    strange: Counter[str],
    reference_loans: int,
    missing: float,
) -> Drift:
    found = psi(counts, shares, reference_loans)
    assert found is not None  # noqa: S101  there are loans on both sides
    return Drift(
        *(name, bins.names, counts.tolist(), shares.tolist(), found),
        *(
            Estimate.of_share(int(counts[-1]), int(counts.sum())),
            missing,
            strange.most_common(_NAMED),
        ),
    )
