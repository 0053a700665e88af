"""Calibration: putting log-odds on the scale on which probabilities are right.

Platt's method (1999): a logistic regression of the outcome on the margin, out of fold. It only
shifts and scales, so ranking and reasons stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from peerloan.model import arithmetic
from peerloan.stats.arrays import Numbers

BINS = 10
_LEAST_SLOPE = 1e-6


class Calibration(arithmetic.Calibration, frozen=True):
    """calibrated margin = slope · margin + intercept."""

    @classmethod
    def fit(cls, margins: Numbers, late: Numbers) -> Calibration:
        """The slope and intercept that fit these outcomes best; there must be some of either kind.

        A slope that isn't positive would turn the ranking round; then margins carry nothing, and
        only their level is set.
        """
        # A little short of certain, as Platt takes outcomes: so margins that part late loans from
        # the others without an error have a finite slope too.
        n_late = float(late.sum())
        n_other = len(late) - n_late
        target = np.where(late == 1, (n_late + 1) / (n_late + 2), 1 / (n_other + 2))
        slope, intercept = _regressed(margins, target)
        if slope > _LEAST_SLOPE:
            return cls(slope, intercept)
        return cls(_LEAST_SLOPE, _log_odds(late) - _LEAST_SLOPE * float(np.mean(margins)))

    @property
    def tells(self) -> bool:
        """Whether the margins say anything of the outcomes, in their own direction."""
        return self.slope > _LEAST_SLOPE

    def apply(self, margins: Numbers) -> Numbers:
        """Calibrated margins (n,)."""
        return self.slope * margins + self.intercept


@dataclass(frozen=True)
class Reliability:
    """How calibrated probabilities are: at most ten bins of about equal size, and figures over all.

    `slope` and `intercept` are those of the outcome regressed on the margin (1 and 0 are perfect);
    `error` is the expected calibration error, the bins' mean distance between expected and
    observed late rate, weighted by their loans; `brier` is the mean squared distance of a loan's
    probability from its outcome.
    """

    expected: tuple[float, ...]
    observed: tuple[float, ...]
    loans: tuple[int, ...]
    slope: float
    intercept: float
    error: float
    brier: float

    @property
    def mean_expected(self) -> float:
        """The mean probability of all loans."""
        return float(np.average(self.expected, weights=self.loans))

    @property
    def mean_observed(self) -> float:
        """The late rate of all loans."""
        return float(np.average(self.observed, weights=self.loans))


def reliability(margins: Numbers, late: Numbers) -> Reliability:
    """Measure the calibration of margins against outcomes; equal margins share a bin."""
    edges = np.unique(np.quantile(margins, np.arange(1, BINS) / BINS))
    _, own = np.unique(np.searchsorted(edges, margins, side="right"), return_inverse=True)
    loans = np.bincount(own)
    # As estimators give them, margins may be beyond what a double's exponential holds.
    p = 1 / (1 + np.exp(-np.clip(margins, -arithmetic.MAX_MARGIN, arithmetic.MAX_MARGIN)))
    expected = np.bincount(own, p) / loans
    observed = np.bincount(own, late) / loans
    slope, intercept = _regressed(margins, late)
    return Reliability(
        tuple(expected.tolist()),
        tuple(observed.tolist()),
        tuple(loans.tolist()),
        slope,
        intercept,
        float(np.average(np.abs(expected - observed), weights=loans)),
        float(np.mean((p - late) ** 2)),
    )


def cross_fitted(margins: Numbers, late: Numbers, fold: npt.NDArray[np.int64]) -> Numbers:
    """Out-of-fold margins, each calibrated on the other folds' loans.

    `fold` (n,) says in which fold each loan was judged.
    """
    calibrated = np.empty_like(margins)
    for number in np.unique(fold):
        own = fold == number
        calibrated[own] = Calibration.fit(margins[~own], late[~own]).apply(margins[own])
    return calibrated


def _regressed(margins: Numbers, target: Numbers) -> tuple[float, float]:
    """Slope and intercept of outcomes (0 to 1) regressed on the margin; 0 on equal margins.

    By maximum likelihood. Where margins part the outcomes without an error there is no largest
    likelihood: then a finite slope that is far too steep.
    """
    centre, spread = float(np.mean(margins)), float(np.std(margins))
    if spread <= 1e-9:
        return 0.0, _log_odds(target)
    # Scaled for the solver; with hardly a penalty, the solution is the same.
    scaled = ((margins - centre) / spread).reshape(-1, 1)
    regression = LogisticRegression(C=1e9, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    regression.fit(
        np.concatenate([scaled, scaled]),
        np.repeat([1, 0], len(target)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope = float(regression.coef_[0, 0]) / spread
    return slope, float(regression.intercept_[0]) - slope * centre


def _log_odds(late: Numbers) -> float:
    rate = float(np.mean(late))
    return float(np.log(rate / (1 - rate)))
