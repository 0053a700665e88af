"""Calibration: how well probabilities fit outcomes (reliability, regression, Brier, log loss)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.measures import Rate

BINS = 10
# A penalty so small that it changes no slope, except where the margins separate late loans from the
# others perfectly: there it makes the slope finite.
RIDGE = 1e-9
# Larger log-odds would overflow a double's exponential; their probability is 0 or 1 anyway.
_MAX_LOG_ODDS = 500.0
# Margins with a smaller standard deviation count as equal.
_MIN_SPREAD = 1e-9
# Newton's method: most steps, most halvings of a step, and the step at which it has converged.
_MAX_STEPS, _MAX_HALVINGS, _CONVERGED = 100, 40, 1e-10


@dataclass(frozen=True)
class Reliability:
    """Calibration of probabilities: at most ten bins of about equal size, and overall figures.

    - `expected`, `observed`, `loans`: for each bin the mean probability, the late rate and the
      number of loans.
    - `slope`, `intercept`: of the outcome regressed on the margin; 1 and 0 are perfect.
    - `error`: the expected calibration error, which is the mean distance between expected and
      observed late rate of a bin, weighted by loans.
    - `brier`: the mean squared distance of a loan's probability from its outcome.

    `report.json` contains this class: its fields are JSON keys there.
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

    @property
    def bins(self) -> list[tuple[float, Rate]]:
        """For each bin the mean probability, and the late rate with its interval."""
        return [
            (expected, Rate.of(round(observed * loans), loans))
            for expected, observed, loans in zip(
                self.expected, self.observed, self.loans, strict=True
            )
        ]


def reliability(margins: Numbers, late: Numbers) -> Reliability:
    """Measure the calibration of margins (n,) against outcomes (n,); equal margins share a bin."""
    edges = np.unique(np.quantile(margins, np.arange(1, BINS) / BINS))
    _, bin_of = np.unique(np.searchsorted(edges, margins, side="right"), return_inverse=True)
    loans = np.bincount(bin_of)
    p = logistic(margins)
    expected = np.bincount(bin_of, p) / loans
    observed = np.bincount(bin_of, late) / loans
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

    If all margins are equal the slope is 0. If the margins separate the outcomes perfectly the
    slope is finite but far too steep.
    """
    line = logistic_regression(margins, target, np.ones(len(margins)), ridge=RIDGE)
    return line or (0.0, log_odds(float(np.mean(target))))


def logistic_regression(
    margins: Numbers, late: Numbers | Codes, loans: Numbers | Codes, ridge: float = 0.0
) -> tuple[float, float] | None:
    """Slope and intercept of outcomes regressed on margins, by maximum likelihood.

    Loans are in groups of equal margins: `margins`, `late` and `loans` (groups,) are the margin of
    a group, its late loans and all of its loans. `ridge` penalises the slope for standardised
    margins: ridge · slope² / 2 is added to the loss. Returns None if the likelihood has no finite
    maximum, as for equal margins.

    D. R. Cox (1958), Two further applications of a model for binary regression, Biometrika 45,
    562–565.
    """
    n, n_late = float(loans.sum()), float(late.sum())
    centre = float(loans @ margins) / n
    spread = math.sqrt(float(loans @ (margins - centre) ** 2) / n)
    if spread <= _MIN_SPREAD or not 0 < n_late < n:
        return None
    line = _fit((margins - centre) / spread, late, loans, ridge)
    if line is None:
        return None
    slope = float(line[0]) / spread
    return slope, float(line[1]) - slope * centre


def _fit(x: Numbers, late: Numbers | Codes, loans: Numbers | Codes, ridge: float) -> Numbers | None:
    """Slope and intercept of the most likely line, by Newton's method.

    A step that would increase the loss is halved.
    """
    on_time = loans - late
    features, penalty = np.stack([x, np.ones(len(x))]), np.array([ridge, 0.0])

    def loss(line: Numbers) -> float:
        z = line @ features
        log_loss = late @ np.logaddexp(0, -z) + on_time @ np.logaddexp(0, z)
        return float(log_loss + penalty @ line**2 / 2)

    line = np.array([0.0, log_odds(float(late.sum() / loans.sum()))])
    for _ in range(_MAX_STEPS):
        # q is not computed as 1 − p, which would lose digits if p is near 1.
        p, q = logistic(line @ features), logistic(-(line @ features))
        gradient = features @ (late * q - on_time * p) - penalty * line
        curvature = (features * (loans * p * q)) @ features.T + np.diag(penalty)
        if not np.linalg.cond(curvature) < 1 / np.finfo(float).eps:
            return None
        step = np.linalg.solve(curvature, gradient)
        if float(np.abs(step).max()) < _CONVERGED:
            return line + step
        loss_before = loss(line) * (1 + 1e-12)
        for _ in range(_MAX_HALVINGS):
            if loss(line + step) <= loss_before:
                break
            step = step / 2
        line = line + step
    return None


def logistic(margins: Numbers) -> Numbers:
    """The probabilities of log-odds (n,), unrounded."""
    # Some estimators give margins whose exponential would overflow.
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

    It is computed from log-odds, because a probability that is rounded to 0 has no logarithm.
    """
    return np.logaddexp(0, np.where(late == 1, -margins, margins))
