"""The population stability index (PSI): how far loans differ from those of the training table."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes


class Psi(NamedTuple):
    """A population stability index.

    `by_chance` is its expected value under no drift, for these numbers of loans; `error` is the
    standard error of `value`.
    """

    value: float
    by_chance: float
    error: float

    def interval(self, significance: float = 0.05) -> tuple[float, float]:
        """The interval of the bias-corrected PSI: `value` − `by_chance`, at least 0.

        It does not contain the true value in this share of windows.
        """
        z = NormalDist().inv_cdf(1 - significance / 2)
        middle, reach = self.value - self.by_chance, z * self.error
        return max(0.0, middle - reach), max(0.0, middle + reach)


def psi(counts: Codes, reference: npt.NDArray[np.float64], reference_loans: int) -> Psi | None:
    """The PSI of loans against a reference; None if either has no loans.

    `counts` (bins,) are the loans in each bin, `reference` (bins,) the reference's shares.

    PSI = Σ (pᵢ − qᵢ)·ln(pᵢ/qᵢ) over bins, p the loans' shares and q the reference's (N. Siddiqi
    2006, Credit Risk Scorecards, chapter 9). A bin that is empty on one side has half a loan added
    on both sides, because the logarithm of 0 is infinite; a bin that is empty on both is left out.

    Without drift, PSI / (1/n + 1/m) is nearly χ² with B − 1 degrees of freedom, which gives its
    mean and its variance (B. Yurdakul 2018, Statistical Properties of Population Stability Index).
    With drift, the variance is that of the delta method plus that of no drift. The delta method's
    slopes are estimated from observed shares, which on average adds twice the variance of no drift;
    so it is subtracted once.
    """
    n, m = int(counts.sum()), reference_loans
    if not n or not m:
        return None
    observed, expected = counts.astype(np.float64), reference * m
    is_used = (observed > 0) | (expected > 0)
    observed, expected = observed[is_used], expected[is_used]
    half = np.where((observed == 0) | (expected == 0), 0.5, 0.0)
    p, q = (observed + half) / n, (expected + half) / m
    log = np.log(p / q)
    by_chance = (len(p) - 1) * (1 / n + 1 / m)
    no_drift_variance = 2 * by_chance * (1 / n + 1 / m)
    delta_variance = _variance(p, log + 1 - q / p) / n + _variance(q, log - 1 + p / q) / m
    error = math.sqrt(max(no_drift_variance, delta_variance - no_drift_variance))
    return Psi(float(np.sum((p - q) * log)), by_chance, error)


def _variance(shares: npt.NDArray[np.float64], slopes: npt.NDArray[np.float64]) -> float:
    """The variance of the slope of a loan's bin. Divided by the loans, it is that of the sum."""
    mean = float(np.sum(shares * slopes))
    return max(0.0, float(np.sum(shares * slopes**2)) - mean**2)
