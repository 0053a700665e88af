"""From checked loans to decisions, in columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan import Codes, Loans, Numbers, Value
from peerloan.model import MAX_REASONS, Bundle, Reasons, probabilities


@dataclass(frozen=True)
class Decided:
    """Decisions on n loans: the loans' values in rows, margins, probabilities, yes or no, and the
    bands' positions in BANDS (each n); contributions (n, features), or None if they cost time and
    were not wanted.
    """

    rows: Sequence[tuple[Value, ...]]
    margins: Numbers
    probabilities: Numbers
    late: npt.NDArray[np.bool_]
    bands: Codes
    contributions: Numbers | None


def decide(
    bundle: Bundle, loans: Loans, explain: bool, progress: Callable[[float], None]
) -> Decided:
    """Decide on loans; `explain` also where contributions take milliseconds a loan, of which
    `progress` hears.
    """
    margins, contributions = bundle.score_many(loans)
    rows = loans.rows()
    if contributions is None and explain:
        contributions = _contributions(bundle, rows, progress)
    return Decided(
        rows,
        margins,
        probabilities(margins),
        bundle.policy.late_many(margins),
        bundle.policy.bands_many(margins),
        contributions,
    )


def sentences(bundle: Bundle, decided: Decided) -> list[list[str | None]]:
    """For each reason column the sentences of all rows, which have contributions."""
    rows, contributions = decided.rows, decided.contributions
    assert contributions is not None  # noqa: S101  who asks for sentences had them explained
    columns: list[list[str | None]] = [[None] * len(rows) for _ in range(MAX_REASONS)]
    # Many loans share a value, and so its sentence.
    said: dict[tuple[int, Value], str] = {}
    for i, positions in enumerate(Reasons.positions_many(contributions).tolist()):
        for column, position in zip(columns, positions, strict=False):
            if position == -1:
                break
            key = (position, rows[i][position])
            sentence = said.get(key)
            if sentence is None:
                sentence = said[key] = bundle.sentence(*key)
            column[i] = sentence
    return columns


def _contributions(
    bundle: Bundle, rows: Sequence[tuple[Value, ...]], progress: Callable[[float], None]
) -> Numbers:
    """Contributions (n, features) of an estimator that explains loan by loan."""
    found = np.empty((len(rows), len(bundle.definition.fields)))
    for i, row in enumerate(rows):
        found[i] = bundle.model.score(row)[1]
        if i % 100 == 0:
            progress(i / len(rows))
    return found
