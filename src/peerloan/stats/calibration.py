"""How right probabilities are: outcomes regressed on log-odds, reliability, Brier and log loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from peerloan.stats.arrays import Codes, Numbers

BINS = 10
# A penalty so small that it moves no slope, except where outcomes are parted without an error.
RIDGE = 1e-9
# Log-odds beyond this give a probability that a double can't tell from 0 or 1.
_MAX_LOG_ODDS = 500.0
_LEAST_SPREAD = 1e-9
_STEPS, _HALVINGS, _CLOSE = 100, 40, 1e-10


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


def reliability(margins: Numbers, late: Numbers) -> Reliability:
    """Measure the calibration of margins against outcomes; equal margins share a bin."""
    edges = np.unique(np.quantile(margins, np.arange(1, BINS) / BINS))
    _, own = np.unique(np.searchsorted(edges, margins, side="right"), return_inverse=True)
    loans = np.bincount(own)
    p = logistic(margins)
    expected = np.bincount(own, p) / loans
    observed = np.bincount(own, late) / loans
    slope, intercept = regress_on_margins(margins, late)
    return Reliability(
        tuple(expected.tolist()),
        tuple(observed.tolist()),
        tuple(loans.tolist()),
        slope,
        intercept,
        float(np.average(np.abs(expected - observed), weights=loans)),
        float(np.mean(squared_errors(p, late))),
    )


def regress_on_margins(margins: Numbers, target: Numbers) -> tuple[float, float]:
    """Slope and intercept of outcomes (n,), from 0 to 1, regressed on margins (n,).

    The slope of equal margins is 0. Where margins part the outcomes without an error the slope is
    finite, and far too steep.
    """
    line = logistic_regression(margins, target, np.ones(len(margins)), ridge=RIDGE)
    return line or (0.0, log_odds(float(np.mean(target))))


def logistic_regression(
    margins: Numbers, late: Numbers | Codes, loans: Numbers | Codes, ridge: float = 0.0
) -> tuple[float, float] | None:
    """Slope and intercept of outcomes regressed on margins, by maximum likelihood.

    Loans come in groups (groups,) of one margin each: how many are late, and how many there are.
    D. R. Cox (1958), Two further applications of a model for binary regression, Biometrika 45,
    562–565. `ridge` is half the penalty of the squared slope per spread of the margins. None if no
    finite line is the most likely one, as where all margins are equal.
    """
    n, n_late = float(loans.sum()), float(late.sum())
    centre = float(loans @ margins) / n
    spread = math.sqrt(float(loans @ (margins - centre) ** 2) / n)
    if spread <= _LEAST_SPREAD or not 0 < n_late < n:
        return None
    line = _fit((margins - centre) / spread, late, loans, ridge)
    if line is None:
        return None
    slope = float(line[0]) / spread
    return slope, float(line[1]) - slope * centre


def _fit(x: Numbers, late: Numbers | Codes, loans: Numbers | Codes, ridge: float) -> Numbers | None:
    """The most likely line (slope, intercept), by Newton's method with halved steps."""
    on_time = loans - late
    features, penalty = np.stack([x, np.ones(len(x))]), np.array([ridge, 0.0])

    def loss(line: Numbers) -> float:
        z = line @ features
        fit = late @ np.logaddexp(0, -z) + on_time @ np.logaddexp(0, z)
        return float(fit + penalty @ line**2 / 2)

    line = np.array([0.0, log_odds(float(late.sum() / loans.sum()))])
    for _ in range(_STEPS):
        # Both by themselves: 1 − p would lose the digits of a p near 1.
        p, q = logistic(line @ features), logistic(-(line @ features))
        gradient = features @ (late * q - on_time * p) - penalty * line
        curvature = (features * (loans * p * q)) @ features.T + np.diag(penalty)
        if not np.linalg.cond(curvature) < 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(curvature, gradient)
        if float(np.abs(step).max()) < _CLOSE:
            return line + step
        before = loss(line) * (1 + 1e-12)
        for _ in range(_HALVINGS):
            if loss(line + step) <= before:
                break
            step = step / 2
        line = line + step
    return None


def logistic(margins: Numbers) -> Numbers:
    """The probabilities of log-odds (n,), unrounded."""
    # As estimators give them, margins may be beyond what a double's exponential holds.
    p: Numbers = 1 / (1 + np.exp(-np.clip(margins, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)))
    return p


def log_odds(rate: float) -> float:
    """The log-odds of a rate between 0 and 1."""
    return float(np.log(rate / (1 - rate)))


def squared_errors(probabilities: Numbers, late: Numbers | float) -> Numbers:
    """The squared error of each loan (n,); their mean is the Brier score (G. W. Brier 1950)."""
    return (probabilities - late) ** 2


def log_losses(margins: Numbers, late: Numbers) -> Numbers:
    """The log loss of each loan (n,).

    From log-odds: a probability that is shown as 0 has a logarithm too.
    """
    return np.logaddexp(0, np.where(late == 1, -margins, margins))
