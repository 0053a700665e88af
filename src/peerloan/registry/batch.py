"""Decisions on many loans at once, in columns.

All batch decisions are made here: those of the API's lists, `peerloan score`, a replay, and the
challenger in shadow. The function needs only a model, its policy and loans, so an engine can run it
on each part of a book.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan import Loans
from peerloan.model import BatchReasons, Policy, Scorecard, probabilities
from peerloan.model.onnx_model import OnnxModel
from peerloan.stats.arrays import Codes, Numbers


@dataclass(frozen=True)
class Decisions:
    """Decisions on n loans; row i of every column belongs to loan i.

    `margins`: float64 (n,), log-odds, multiples of 2⁻³². The policy's limits apply to them.
    `probabilities`: float64 (n,), 0 to 1, rounded to nine decimals.
    `late`: bool (n,), whether the margin reaches the threshold.
    `bands`: int64 (n,), positions in `BANDS`.
    `contributions`: float64 (n, fields), log-odds in the order of the fields, NaN for a loan
    without an explanation. None if no explanation was requested.
    `reasons`: the reasons derived from the contributions; None if these are None.

    Thread safety: threads may share an instance, because nothing writes to the arrays after they
    are made. Ownership: callers must not write to them either. Reading raises no errors; scoring
    raises them before an instance exists.
    """

    margins: Numbers
    probabilities: Numbers
    late: npt.NDArray[np.bool_]
    bands: Codes
    contributions: Numbers | None
    reasons: BatchReasons | None

    @property
    def explained(self) -> npt.NDArray[np.bool_]:
        """Whether each loan has contributions and reasons (n,)."""
        if self.contributions is None:
            return np.zeros(len(self.margins), dtype=np.bool_)
        return np.logical_not(np.isnan(self.contributions).any(axis=1))


def decide_many(
    model: Scorecard | OnnxModel, policy: Policy, loans: Loans, explain: bool | Iterable[int]
) -> Decisions:
    """Decide on many loans; see `Bundle.decide_many`."""
    contributions: Numbers | None = None
    if isinstance(model, Scorecard):
        margins, contributions = model.score_many(loans)
        contributions = None if explain is False else contributions
    else:
        margins = model.margins(loans)
        if explain is not False:
            positions = range(loans.size) if explain is True else explain
            contributions = _explain(model, loans, positions)
    return Decisions(
        margins,
        probabilities(margins),
        policy.late_many(margins),
        policy.bands_many(margins),
        contributions,
        None if contributions is None else BatchReasons.of(loans, contributions),
    )


def _explain(model: OnnxModel, loans: Loans, positions: Iterable[int]) -> Numbers:
    """Return contributions (n, fields) of the loans at these positions; NaN for the others."""
    contributions = np.full((loans.size, len(loans.definition.fields)), np.nan)
    rows = loans.rows()
    for i in positions:
        contributions[i] = model.score(rows[i])[1]
    return contributions
