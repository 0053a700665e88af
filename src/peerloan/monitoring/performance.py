"""Performance of a version: estimated from its probabilities, or realised from known outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.model import Policy, probabilities
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.calibration import logistic_regression, squared_errors
from peerloan.stats.discrimination import (
    MIN_LOANS_PER_OUTCOME,
    auc_of_counts,
    ks_gaps,
    window_auc_interval,
)
from peerloan.stats.estimate import Estimate

_SIMULATIONS = 1_000
# Cells of the margin per unit of log-odds. Probabilities in a cell differ by at most 1.6 %. The
# threshold is a boundary between two cells.
CELLS = 64


class EstimatedPerformance(NamedTuple):
    """Expected figures of the outcomes, if the predicted probabilities are correct."""

    late_rate: Estimate
    auc: Estimate | None
    recall: Estimate | None


class RealisedPerformance(NamedTuple):
    """Figures of the known outcomes.

    AUC, Gini and KS are None with fewer than five late or five on-time loans. Recall is None
    without late loans.
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
    """A risk band: its position in `BANDS`, loans, late loans, and expected late loans."""

    band: int
    loans: int
    late: int
    expected: float


class ObservedCalibration(NamedTuple):
    """Observed calibration: late loans compared with the number that the probabilities predict.

    `ratio` is late / expected. `slope` and `intercept` are of a logistic regression of the outcome
    on the margin: 1 and 0 if the probabilities are calibrated, None if no finite slope exists.
    """

    late: int
    expected: float
    ratio: Estimate
    slope: float | None
    intercept: float | None
    bands: list[BandCalibration]


@dataclass(frozen=True)
class Scores:
    """Loans grouped by margin, in ascending order (groups,).

    `margins` are distinct. `loans` are the numbers of loans, `late` those of late loans, None if
    outcomes are not known.
    """

    margins: Numbers
    loans: Codes
    late: Codes | None = None

    @classmethod
    def of(cls, margins: Numbers, late: Codes | None = None) -> Scores:
        """Group single loans by their margins (n,). `late` (n,) is 1 or 0 for each loan."""
        distinct, groups = np.unique(margins, return_inverse=True)
        loans = np.bincount(groups, minlength=len(distinct))
        if late is None:
            return cls(distinct, loans)
        return cls(distinct, loans, np.bincount(groups[late == 1], minlength=len(distinct)))

    def estimated(self, policy: Policy) -> EstimatedPerformance:
        """Estimate performance without outcomes.

        Source: confidence-based performance estimation (CBPE), as in NannyML's documentation. A
        loan of probability p counts as p late loans and 1 − p others. Outcomes are simulated with
        the probabilities; the intervals contain the figures of 95 % of the simulations. Small
        windows have wide intervals.
        """
        # Simulating each margin would not fit into memory, so similar margins are merged into
        # cells. The threshold is a boundary of cells, so all loans of a cell are flagged or none.
        cell = np.floor((self.margins - policy.threshold_margin) * CELLS)
        cells, cell_of_group = np.unique(cell, return_inverse=True)
        loans = np.bincount(cell_of_group, self.loans)
        expected = np.bincount(cell_of_group, self.loans * probabilities(self.margins))
        drawn = np.random.default_rng(0).binomial(
            loans.astype(np.int64), np.clip(expected / loans, 0, 1), (_SIMULATIONS, len(cells))
        )
        mean, draws = expected[np.newaxis], drawn.astype(np.float64)
        flagged, n = np.asarray(cells >= 0), loans.sum()
        late_rate = _estimate(mean.sum(axis=1) / n, draws.sum(axis=1) / n)
        assert late_rate is not None  # noqa: S101  there are loans
        return EstimatedPerformance(
            late_rate,
            # Loans with equal scores have no ranking.
            _estimate(auc_of_counts(mean, loans - mean), auc_of_counts(draws, loans - draws))
            if len(cells) > 1
            else None,
            _estimate(_recall(mean, flagged), _recall(draws, flagged)),
        )

    def realised(self, policy: Policy) -> RealisedPerformance:
        """Compute the figures of known outcomes.

        They are: the area under the ROC curve (AUC), Gini = 2 AUC − 1, the largest distance between
        the score distributions of late and other loans (Kolmogorov–Smirnov), the mean squared
        difference of probability and outcome (Brier 1950), and recall at the threshold. Rates have
        exact intervals (Clopper and Pearson 1934).
        """
        late = self._outcomes().astype(np.float64)
        p = probabilities(self.margins)
        n, n_late = int(self.loans.sum()), int(late.sum())
        on_time = self.loans - late
        errors = late * squared_errors(p, 1.0) + on_time * squared_errors(p, 0.0)
        brier = float(np.sum(errors)) / n
        rate = Estimate.of_share(n_late, n)
        flagged_late = int(late[policy.late_many(self.margins)].sum())
        recall = Estimate.of_share(flagged_late, n_late) if n_late else None
        auc = self.realised_auc()
        if auc is None:
            return RealisedPerformance(n, n_late, rate, None, None, None, brier, recall)
        ks = float(np.max(np.abs(ks_gaps(late, on_time))))
        return RealisedPerformance(n, n_late, rate, auc, 2 * auc.value - 1, ks, brier, recall)

    def realised_auc(self, wrong: float = 0.05) -> Estimate | None:
        """Compute the AUC; None with fewer than five late or five on-time loans.

        The interval does not contain the true value in the share `wrong` of windows.
        """
        late = self._outcomes()
        n, n_late = int(self.loans.sum()), int(late.sum())
        if min(n_late, n - n_late) < MIN_LOANS_PER_OUTCOME:
            return None
        auc = float(auc_of_counts(late, self.loans - late))
        expected = self.loans * probabilities(self.margins)
        return Estimate(auc, *window_auc_interval(auc, expected, self.loans, late, wrong))

    def calibration(self, policy: Policy) -> ObservedCalibration:
        """Compare the late loans with the number that the probabilities predict."""
        late = self._outcomes()
        p = probabilities(self.margins)
        expected = self.loans * p
        band_of_group = policy.bands_many(self.margins)
        bands = [
            BandCalibration(
                band,
                int(self.loans[band_of_group == band].sum()),
                int(late[band_of_group == band].sum()),
                float(expected[band_of_group == band].sum()),
            )
            for band in np.unique(band_of_group).tolist()
        ]
        line = logistic_regression(self.margins, late, self.loans)
        slope, intercept = line or (None, None)
        sums = int(late.sum()), float(expected.sum())
        return ObservedCalibration(*sums, Estimate.of_ratio(*sums), slope, intercept, bands)

    def _outcomes(self) -> Codes:
        assert self.late is not None  # noqa: S101  callers have outcomes
        return self.late


def _recall(late: npt.NDArray[Any], flagged: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the recall of each simulation (simulations,); NaN without late loans.

    `late` are the late loans of each cell (simulations, cells).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        recall: npt.NDArray[np.float64] = late[:, flagged].sum(axis=1) / late.sum(axis=1)
        return recall


def _estimate(
    value: npt.NDArray[np.float64], simulated: npt.NDArray[np.float64]
) -> Estimate | None:
    """Estimate a figure. The interval is the middle 95 % of the simulated figures that exist."""
    existing = simulated[~np.isnan(simulated)]
    if np.isnan(value[0]) or not len(existing):
        return None
    low, high = np.quantile(existing, [0.025, 0.975]).tolist()
    return Estimate(float(value[0]), low, high)
