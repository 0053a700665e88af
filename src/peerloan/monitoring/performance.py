"""Performance of a version: estimated from its probabilities, and realised by outcomes.

Loans are in groups with the same margin, in ascending order.
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
# Cells of the margin per unit of log-odds: probabilities in a cell differ by at most 1.6 %. The
# threshold is the boundary between two cells.
CELLS = 64


class EstimatedPerformance(NamedTuple):
    """Expected figures of the outcomes, if the probabilities are right."""

    late_rate: Estimate
    auc: Estimate | None
    recall: Estimate | None


class RealisedPerformance(NamedTuple):
    """Figures of the known outcomes.

    Ranking figures are None with fewer than five late or five on-time loans; recall is None without
    late loans.
    """

    loans: int
    late: int
    late_rate: Estimate
    auc: Estimate | None
    gini: float | None
    ks: float | None
    brier: float
    recall: Estimate | None


class BandCalibration(NamedTuple):
    """The loans of a band: their number, the late ones, and the expected number of late ones."""

    band: int
    loans: int
    late: int
    expected: float


class ObservedCalibration(NamedTuple):
    """Calibration of the probabilities: late loans, their expected number, and the ratio.

    `slope` and `intercept` are those of the outcome regressed on the margin: 1 and 0 if calibrated,
    None if no finite slope exists.
    """

    late: int
    expected: float
    ratio: Estimate
    slope: float | None
    intercept: float | None
    bands: list[BandCalibration]


@dataclass(frozen=True)
class Scores:
    """Loans in groups of one margin, ascending (groups,): margins, loans, and known late loans."""

    margins: Numbers
    loans: Codes
    late: Codes | None = None

    @classmethod
    def of(cls, margins: Numbers, late: Codes | None = None) -> Scores:
        """Group single loans (n,) by margin; `late` is 1 or 0 for each."""
        different, own = np.unique(margins, return_inverse=True)
        loans = np.bincount(own, minlength=len(different))
        if late is None:
            return cls(different, loans)
        return cls(different, loans, np.bincount(own[late == 1], minlength=len(different)))

    def estimated(self, policy: Policy) -> EstimatedPerformance:
        """Estimate performance without outcomes (CBPE, as in NannyML's documentation).

        A loan counts as late to the share of its probability. The intervals contain the figures of
        95 % of outcome sets that are simulated with the probabilities; a small window has wide
        ones.
        """
        # Simulating each margin would not fit into memory, so near margins are merged. The
        # threshold separates cells, so that each cell is flagged or not as a whole.
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
        return EstimatedPerformance(
            late_rate,
            # Loans that are all alike have no ranking.
            _estimate(auc_of_counts(mean, loans - mean), auc_of_counts(draws, loans - draws))
            if len(cells) > 1
            else None,
            _estimate(_recall(mean, flagged), _recall(draws, flagged)),
        )

    def expected_auc(self) -> float:
        """The expected area under the ROC curve if the probabilities are right."""
        expected = self.loans * probabilities(self.margins)
        return float(auc_of_counts(expected, self.loans - expected))

    def realised(self, policy: Policy) -> RealisedPerformance:
        """Compute the figures of known outcomes.

        These are the area under the ROC curve, Gini = 2 AUC − 1, the largest distance between the
        two distributions of scores (Kolmogorov–Smirnov), the mean squared difference of probability
        and outcome (Brier 1950), and recall at the threshold. Rates have exact intervals (Clopper
        and Pearson 1934).
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
            return RealisedPerformance(n, n_late, rate, None, None, None, brier, recall)
        ks = float(np.max(np.abs(ks_gaps(late, on_time))))
        return RealisedPerformance(n, n_late, rate, auc, 2 * auc.value - 1, ks, brier, recall)

    def realised_auc(self, wrong: float = 0.05) -> Estimate | None:
        """Compute the AUC; None with fewer than five late or five on-time loans.

        The interval misses the true value in this share of windows.
        """
        late = self._outcomes()
        n, n_late = int(self.loans.sum()), int(late.sum())
        if min(n_late, n - n_late) < LEAST_OF_A_KIND:
            return None
        auc = float(auc_of_counts(late, self.loans - late))
        expected = self.loans * probabilities(self.margins)
        return Estimate(auc, *window_auc_interval(auc, expected, self.loans, late, wrong))

    def calibration(self, policy: Policy) -> ObservedCalibration:
        """Compute the calibration of the probabilities."""
        late = self._outcomes()
        p = probabilities(self.margins)
        expected = self.loans * p
        own = policy.bands_many(self.margins)
        bands = [
            BandCalibration(
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
        return ObservedCalibration(*sums, Estimate.of_ratio(*sums), slope, intercept, bands)

    def _outcomes(self) -> Codes:
        assert self.late is not None  # noqa: S101  callers have outcomes
        return self.late


def _recall(late: npt.NDArray[Any], flagged: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: npt.NDArray[np.float64] = late[:, flagged].sum(axis=1) / late.sum(axis=1)
        return found


def _estimate(value: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> Estimate | None:
    """Estimate a figure; the interval is the middle 95 % of the simulated sets that have it."""
    found = drawn[~np.isnan(drawn)]
    if np.isnan(value[0]) or not len(found):
        return None
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return Estimate(float(value[0]), low, high)
