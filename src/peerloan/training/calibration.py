"""Calibration: putting log-odds on the scale on which probabilities are right.

Platt's method (1999): a logistic regression of the outcome on the margin, out of fold. It only
shifts and scales, so ranking and reasons stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from peerloan.loan import Numbers

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """calibrated margin = slope · margin + intercept."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, margins: Numbers, late: Numbers) -> Calibration:
        """The slope and intercept that fit these outcomes best.

        A slope that isn't positive would turn the ranking round; then margins carry nothing, and
        only their level is set.
        """
        spread = float(np.std(margins))
        if spread > 1e-9:
            # Scaled for the solver; without a penalty, the solution is the same.
            centre = float(np.mean(margins))
            regression = LogisticRegression(C=np.inf, max_iter=1000)
            regression.fit(((margins - centre) / spread).reshape(-1, 1), late)
            slope = float(regression.coef_[0, 0]) / spread
            if slope > 1e-6:
                return cls(slope, float(regression.intercept_[0]) - slope * centre)
        rate = float(np.mean(late))
        return cls(1e-6, float(np.log(rate / (1 - rate)) - 1e-6 * np.mean(margins)))

    def apply(self, margins: Numbers) -> Numbers:
        """Calibrated margins (n,)."""
        return self.slope * margins + self.intercept


@dataclass(frozen=True)
class Reliability:
    """How calibrated probabilities are: ten bins of equal size, and figures over all.

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
    """Measure the calibration of margins against outcomes."""
    p = 1 / (1 + np.exp(-margins))
    order = np.argsort(p, kind="stable")
    bins = [rows for rows in np.array_split(order, BINS) if len(rows)]
    expected = [float(p[rows].mean()) for rows in bins]
    observed = [float(late[rows].mean()) for rows in bins]
    sizes = [len(rows) for rows in bins]
    distances = np.abs(np.array(expected) - np.array(observed))
    fitted = Calibration.fit(margins, late)
    return Reliability(
        tuple(expected),
        tuple(observed),
        tuple(sizes),
        fitted.slope,
        fitted.intercept,
        float(np.average(distances, weights=sizes)),
    )


def cross_fitted(margins: Numbers, late: Numbers, fold: np.ndarray) -> Numbers:  # type: ignore[type-arg]
    """Out-of-fold margins, each calibrated on the other folds' loans; `fold` numbers each loan's."""
    calibrated = np.empty_like(margins)
    for number in np.unique(fold):
        own = fold == number
        calibrated[own] = Calibration.fit(margins[~own], late[~own]).apply(margins[own])
    return calibrated
