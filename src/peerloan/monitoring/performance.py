"""How good a version is: estimated from its probabilities alone, and realised by outcomes.

Loans come in groups of one margin, in rising order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.model import Policy, probabilities
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.calibration import logistic_regression, squared_errors
from peerloan.stats.discrimination import (
    LEAST_OF_A_KIND,
    auc_of_counts,
    ks_gaps,
    window_auc_interval,
)
from peerloan.stats.estimate import Estimate

_DRAWS = 1_000
# Of a margin's unit: probabilities within a cell differ by at most 1.6 %. The threshold parts two.
CELLS = 64


class Estimated(NamedTuple):
    """What the outcomes of loans are expected to be, if the probabilities are right."""

    late_rate: Estimate
    auc: Estimate | None
    recall: Estimate | None


class Realised(NamedTuple):
    """What the outcomes of loans were; figures of their ranking are None with fewer than five late
    loans or five on time, recall without late ones.
    """

    loans: int
    late: int
    late_rate: Estimate
    auc: Estimate | None
    gini: float | None
    ks: float | None
    brier: float
    recall: Estimate | None


class InBand(NamedTuple):
    """The loans of a band: how many, how many of them late, and how many were expected to be."""

    band: int
    loans: int
    late: int
    expected: float


class CalibrationFigures(NamedTuple):
    """How right probabilities were: late loans, how many were expected, and their ratio; `slope`
    and `intercept` of outcomes regressed on margins, 1 and 0 where they are right, and None if
    there is no finite slope.
    """

    late: int
    expected: float
    ratio: Estimate
    slope: float | None
    intercept: float | None
    bands: list[InBand]


@dataclass(frozen=True)
class Scores:
    """Loans in groups of one margin, rising (groups,): margins, loans, and late ones if known."""

    margins: Numbers
    loans: Codes
    late: Codes | None = None

    @classmethod
    def of(cls, margins: Numbers, late: Codes | None = None) -> Scores:
        """The groups of single loans (n,); `late` is 1 or 0 for each."""
        different, own = np.unique(margins, return_inverse=True)
        loans = np.bincount(own, minlength=len(different))
        if late is None:
            return cls(different, loans)
        return cls(different, loans, np.bincount(own[late == 1], minlength=len(different)))

    def estimated(self, policy: Policy) -> Estimated:
        """What confidence-based performance estimation says (CBPE; as NannyML's documentation
        describes it): a loan counts as late to the share of its probability.

        The intervals hold the figures of 95 of 100 sets of outcomes that are drawn by the
        probabilities: of a small window they are wide.
        """
        # So many draws of each margin would not fit into memory: of near ones together they do.
        # The threshold parts cells, so that it is plain which of them are flagged.
        cell = np.floor((self.margins - policy.threshold_margin) * CELLS)
        cells, own = np.unique(cell, return_inverse=True)
        loans = np.bincount(own, self.loans)
        expected = np.bincount(own, self.loans * probabilities(self.margins))
        drawn = np.random.default_rng(0).binomial(
            loans.astype(np.int64), np.clip(expected / loans, 0, 1), (_DRAWS, len(cells))
        )
        mean, draws = expected[np.newaxis], drawn.astype(np.float64)
        flagged, n = np.asarray(cells >= 0), loans.sum()
        late_rate = _estimate(mean.sum(axis=1) / n, draws.sum(axis=1) / n)
        assert late_rate is not None  # noqa: S101  there are loans
        return Estimated(
            late_rate,
            # Of loans that are all alike nothing is said of their order.
            _estimate(auc_of_counts(mean, loans - mean), auc_of_counts(draws, loans - draws))
            if len(cells) > 1
            else None,
            _estimate(_recall(mean, flagged), _recall(draws, flagged)),
        )

    def expected_auc(self) -> float:
        """The area under the ROC curve if the probabilities are right."""
        expected = self.loans * probabilities(self.margins)
        return float(auc_of_counts(expected, self.loans - expected))

    def realised(self, policy: Policy) -> Realised:
        """The figures of outcomes: area under the ROC curve, Gini = 2 AUC − 1, the largest distance
        of the two distributions of scores (Kolmogorov–Smirnov), the mean squared distance of
        probability and outcome (Brier 1950), and recall from the threshold on. Rates have exact
        intervals (Clopper and Pearson 1934).
        """
        late = self._outcomes().astype(np.float64)
        p = probabilities(self.margins)
        n, n_late = int(self.loans.sum()), int(late.sum())
        on_time = self.loans - late
        errors = late * squared_errors(p, 1.0) + on_time * squared_errors(p, 0.0)
        brier = float(np.sum(errors)) / n
        rate = Estimate.of_share(n_late, n)
        found = int(late[policy.late_many(self.margins)].sum())
        recall = Estimate.of_share(found, n_late) if n_late else None
        auc = self.realised_auc()
        if auc is None:
            return Realised(n, n_late, rate, None, None, None, brier, recall)
        ks = float(np.max(np.abs(ks_gaps(late, on_time))))
        return Realised(n, n_late, rate, auc, 2 * auc.value - 1, ks, brier, recall)

    def realised_auc(self, wrong: float = 0.05) -> Estimate | None:
        """The area under the ROC curve; None with fewer than five loans of a kind. The interval
        does not hold in this share of windows.
        """
        late = self._outcomes()
        n, n_late = int(self.loans.sum()), int(late.sum())
        if min(n_late, n - n_late) < LEAST_OF_A_KIND:
            return None
        auc = float(auc_of_counts(late, self.loans - late))
        expected = self.loans * probabilities(self.margins)
        return Estimate(auc, *window_auc_interval(auc, expected, self.loans, late, wrong))

    def calibration(self, policy: Policy) -> CalibrationFigures:
        """How right the probabilities were."""
        late = self._outcomes()
        p = probabilities(self.margins)
        expected = self.loans * p
        own = policy.bands_many(self.margins)
        bands = [
            InBand(
                band,
                int(self.loans[own == band].sum()),
                int(late[own == band].sum()),
                float(expected[own == band].sum()),
            )
            for band in np.unique(own).tolist()
        ]
        line = logistic_regression(self.margins, late, self.loans)
        slope, intercept = line or (None, None)
        sums = int(late.sum()), float(expected.sum())
        return CalibrationFigures(*sums, Estimate.of_ratio(*sums), slope, intercept, bands)

    def _outcomes(self) -> Codes:
        assert self.late is not None  # noqa: S101  who asks has outcomes
        return self.late


def _recall(late: npt.NDArray[Any], flagged: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: npt.NDArray[np.float64] = late[:, flagged].sum(axis=1) / late.sum(axis=1)
        return found


def _estimate(value: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> Estimate | None:
    """A figure of one set, with the middle 95 % of those of drawn sets that have it."""
    found = drawn[~np.isnan(drawn)]
    if np.isnan(value[0]) or not len(found):
        return None
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return Estimate(float(value[0]), low, high)
