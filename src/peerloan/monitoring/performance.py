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
from peerloan.stats.auc_interval import LEAST, auc_interval
from peerloan.stats.estimate import Estimate

_DRAWS = 1_000
# Of a margin's unit: probabilities within a cell differ by at most 1.6 %. The threshold parts two.
CELLS = 64
_STEPS, _CLOSE, _FARTHEST = 50, 1e-10, 2.0


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


class Calibration(NamedTuple):
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
            _estimate(_auc(mean, loans), _auc(draws, loans)) if len(cells) > 1 else None,
            _estimate(_recall(mean, flagged), _recall(draws, flagged)),
        )

    def expected_auc(self) -> float:
        """The area under the ROC curve if the probabilities are right."""
        expected = self.loans * probabilities(self.margins)
        return float(_auc(expected[np.newaxis], self.loans)[0])

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
        brier = float(np.sum(late * (1 - p) ** 2 + on_time * p**2)) / n
        rate = Estimate.of_share(n_late, n)
        found = int(late[policy.late_many(self.margins)].sum())
        recall = Estimate.of_share(found, n_late) if n_late else None
        auc = self.realised_auc()
        if auc is None:
            return Realised(n, n_late, rate, None, None, None, brier, recall)
        distance = np.cumsum(on_time) / on_time.sum() - np.cumsum(late) / n_late
        ks = float(np.max(np.abs(distance)))
        return Realised(n, n_late, rate, auc, 2 * auc.value - 1, ks, brier, recall)

    def realised_auc(self, wrong: float = 0.05) -> Estimate | None:
        """The area under the ROC curve; None with fewer than five loans of a kind. The interval
        does not hold in this share of windows.
        """
        late = self._outcomes()
        n, n_late = int(self.loans.sum()), int(late.sum())
        if min(n_late, n - n_late) < LEAST:
            return None
        auc = float(_auc(late[np.newaxis].astype(np.float64), self.loans)[0])
        expected = self.loans * probabilities(self.margins)
        return Estimate(auc, *auc_interval(auc, expected, self.loans, late, wrong))

    def calibration(self, policy: Policy) -> Calibration:
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
        slope, intercept = regressed(self.margins, late, self.loans) or (None, None)
        sums = int(late.sum()), float(expected.sum())
        return Calibration(*sums, Estimate.of_ratio(*sums), slope, intercept, bands)

    def _outcomes(self) -> Codes:
        assert self.late is not None  # noqa: S101  who asks has outcomes
        return self.late


def regressed(margins: Numbers, late: Codes, loans: Codes) -> tuple[float, float] | None:
    """Slope and intercept of outcomes regressed on margins, by maximum likelihood (D. R. Cox 1958,
    Two further applications of a model for binary regression); None if they are not finite.
    """
    x = np.stack([margins, np.ones(len(margins))])
    found = np.array([1.0, 0.0])
    for _ in range(_STEPS):  # Newton's method
        p = 1 / (1 + np.exp(-np.clip(found @ x, -500, 500)))
        gradient = x @ (late - loans * p)
        curvature = (x * (loans * p * (1 - p))) @ x.T
        if not np.linalg.cond(curvature) < 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(curvature, gradient)
        # A longer one may lead away from the maximum.
        found = found + step * min(1.0, _FARTHEST / max(float(np.abs(step).max()), _CLOSE))
        if float(np.abs(step).max()) < _CLOSE:
            return float(found[0]), float(found[1])
    return None


def _auc(late: npt.NDArray[Any], loans: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """For sets of outcomes (sets, groups): how often a late loan's margin is above an on-time
    one's, a tie counting half; NaN where one kind is missing.
    """
    on_time = loans - late
    below = np.cumsum(on_time, axis=1) - on_time / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = late.sum(axis=1) * on_time.sum(axis=1)
        found: npt.NDArray[np.float64] = np.sum(late * below, axis=1) / pairs
        return found


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
