"""How far loans have moved from those that a version was trained on."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes


class Psi(NamedTuple):
    """A population stability index; what of it chance alone brings on average, with as many loans
    on both sides; and its standard error.
    """

    value: float
    by_chance: float
    error: float

    def interval(self, wrong: float = 0.05) -> tuple[float, float]:
        """The ends of an interval of what is left without chance, which does not hold in this share
        of windows.
        """
        z = NormalDist().inv_cdf(1 - wrong / 2)
        middle, reach = self.value - self.by_chance, z * self.error
        return max(0.0, middle - reach), max(0.0, middle + reach)


def psi(counts: Codes, reference: npt.NDArray[np.float64], reference_loans: int) -> Psi | None:
    """The population stability index of loans, counted in bins (bins,), against the shares of the
    reference in the same bins; None without loans.

    PSI = Σ (pᵢ − qᵢ)·ln(pᵢ/qᵢ) over bins, p the loans' shares and q the reference's (N. Siddiqi
    2006, Credit Risk Scorecards, chapter 9). A bin that is empty on one side has half a loan added
    on both, because a logarithm of 0 says nothing; one that is empty on both is left out. Without
    drift, PSI / (1/n + 1/m) is nearly χ² with B − 1 degrees of freedom: that gives its mean and its
    variance (B. Yurdakul 2018, Statistical Properties of Population Stability Index). With drift,
    the variance is that of the delta method, less what chance alone adds to it: its slopes are
    those at drawn shares, and their squares hold twice the variance without drift.
    """
    n, m = int(counts.sum()), reference_loans
    if not n or not m:
        return None
    here, there = counts.astype(np.float64), reference * m
    held = (here > 0) | (there > 0)
    here, there = here[held], there[held]
    half = np.where((here == 0) | (there == 0), 0.5, 0.0)
    p, q = (here + half) / n, (there + half) / m
    log = np.log(p / q)
    chance = (len(p) - 1) * (1 / n + 1 / m)
    calm = 2 * chance * (1 / n + 1 / m)
    drawn = _variance(p, log + 1 - q / p) / n + _variance(q, log - 1 + p / q) / m
    error = math.sqrt(max(calm, drawn - calm))
    return Psi(float(np.sum((p - q) * log)), chance, error)


def _variance(shares: npt.NDArray[np.float64], slopes: npt.NDArray[np.float64]) -> float:
    """The variance of a sum over bins, times the loans: that of the slopes among the loans."""
    mean = float(np.sum(shares * slopes))
    return max(0.0, float(np.sum(shares * slopes**2)) - mean**2)
