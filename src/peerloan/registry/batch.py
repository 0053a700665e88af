"""Decisions on many loans at once, in columns.

This is the only batch decision: the API's lists, `peerloan score`, a replay and the challenger in
shadow all use it. It needs nothing but a model, its policy and loans, so an engine can run it on
each part of a book.
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

    `margins`: float64 (n,), log-odds, multiples of 2⁻³². They are compared with the policy.
    `probabilities`: float64 (n,), 0 to 1, rounded to nine decimals.
    `late`: bool (n,), whether the margin reaches the threshold.
    `bands`: int64 (n,), positions in `BANDS`.
    `contributions`: float64 (n, fields), log-odds in the fields' order, NaN for a loan that was not
    explained. None if no explanation was asked for.
    `reasons`: the reasons that follow from the contributions; None as they are.

    Nothing writes into the arrays once they are made, so threads can share them.
    """

    margins: Numbers
    probabilities: Numbers
    late: npt.NDArray[np.bool_]
    bands: Codes
    contributions: Numbers | None
    reasons: BatchReasons | None

    @property
    def explained(self) -> npt.NDArray[np.bool_]:
        """Which loans have contributions and reasons (n,)."""
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
    """Contributions (n, fields) of the loans at these positions; NaN for the others."""
    contributions = np.full((loans.size, len(loans.definition.fields)), np.nan)
    rows = loans.rows()
    for i in positions:
        contributions[i] = model.score(rows[i])[1]
    return contributions
