"""Calibration: putting log-odds on the scale on which probabilities are right.

Platt's method (1999): a logistic regression of the outcome on the margin, out of fold. It only
shifts and scales, so ranking and reasons stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from peerloan.loan import Numbers
from peerloan.model import arithmetic

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
        slope, intercept = _regressed(margins, late)
        if slope > _LEAST_SLOPE:
            return cls(slope, intercept)
        return cls(_LEAST_SLOPE, _log_odds(late) - _LEAST_SLOPE * float(np.mean(margins)))

    def apply(self, margins: Numbers) -> Numbers:
        """Calibrated margins (n,)."""
        return self.slope * margins + self.intercept


@dataclass(frozen=True)
class Reliability:
    """How calibrated probabilities are: at most ten bins of about equal size, and figures over all.

    `slope` and `intercept` are those of the outcome regressed on the margin (1 and 0 are perfect);
    `error` is the expected calibration error, the bins' mean distance between expected and
    observed late rate, weighted by their loans.
    """

    expected: tuple[float, ...]
    observed: tuple[float, ...]
    loans: tuple[int, ...]
    slope: float
    intercept: float
    error: float


def reliability(margins: Numbers, late: Numbers) -> Reliability:
    """Measure the calibration of margins against outcomes; equal margins share a bin."""
    edges = np.unique(np.quantile(margins, np.arange(1, BINS) / BINS))
    _, own = np.unique(np.searchsorted(edges, margins, side="right"), return_inverse=True)
    loans = np.bincount(own)
    expected = np.bincount(own, 1 / (1 + np.exp(-margins))) / loans
    observed = np.bincount(own, late) / loans
    slope, intercept = _regressed(margins, late)
    return Reliability(
        tuple(expected.tolist()),
        tuple(observed.tolist()),
        tuple(loans.tolist()),
        slope,
        intercept,
        float(np.average(np.abs(expected - observed), weights=loans)),
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


def _regressed(margins: Numbers, late: Numbers) -> tuple[float, float]:
    """Slope and intercept of the outcome regressed on the margin; 0 on margins that are equal.

    Outcomes are taken as Platt takes them, a little short of certain: so margins that part late
    loans from the others without an error have a slope too. Nothing else notices.
    """
    centre, spread = float(np.mean(margins)), float(np.std(margins))
    if spread <= 1e-9:
        return 0.0, _log_odds(late)
    n_late = float(late.sum())
    n_other = len(late) - n_late
    target = np.where(late == 1, (n_late + 1) / (n_late + 2), 1 / (n_other + 2))
    # Scaled for the solver; without a penalty, the solution is the same.
    scaled = ((margins - centre) / spread).reshape(-1, 1)
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    regression.fit(
        np.concatenate([scaled, scaled]),
        np.repeat([1, 0], len(late)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope = float(regression.coef_[0, 0]) / spread
    return slope, float(regression.intercept_[0]) - slope * centre


def _log_odds(late: Numbers) -> float:
    rate = float(np.mean(late))
    return float(np.log(rate / (1 - rate)))
