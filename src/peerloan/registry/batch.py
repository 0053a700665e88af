"""From checked loans to decisions, in columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan import Loans, Value
from peerloan.model import Said, probabilities, said_of
from peerloan.registry import Bundle
from peerloan.stats.arrays import Codes, Numbers


@dataclass(frozen=True)
class Decided:
    """Decisions on n loans: margins, probabilities, yes or no, and the bands' positions in BANDS
    (each n); and their reasons, or None if they cost time and were not wanted.
    """

    margins: Numbers
    probabilities: Numbers
    late: npt.NDArray[np.bool_]
    bands: Codes
    said: Said | None


def decide(
    bundle: Bundle, loans: Loans, explain: bool, progress: Callable[[float], None]
) -> Decided:
    """Decide on loans; `explain` also where contributions take milliseconds a loan, of which
    `progress` hears.
    """
    margins, contributions = bundle.score_many(loans)
    if contributions is None and explain:
        contributions = _contributions(bundle, loans.rows(), progress)
    return Decided(
        margins,
        probabilities(margins),
        bundle.policy.late_many(margins),
        bundle.policy.bands_many(margins),
        None if contributions is None else said_of(loans, contributions),
    )


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
