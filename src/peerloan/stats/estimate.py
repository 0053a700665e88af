"""Figures with their intervals."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

from peerloan.stats.intervals import Z95, exact_share, poisson


class Estimate(NamedTuple):
    """A figure, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def wider(self, wrong: float) -> Estimate:
        """The figure with an interval that does not hold in this share of windows, as far as its
        sides are those of normal distributions.
        """
        factor = NormalDist().inv_cdf(1 - wrong / 2) / Z95
        low, high = (self.value + factor * (end - self.value) for end in self[1:])
        return Estimate(self.value, low, high)

    @classmethod
    def of_share(cls, count: int, whole: int, wrong: float = 0.05) -> Estimate:
        """A share of at least one loan; the interval does not hold in at most this share of
        windows.
        """
        return cls(count / whole, *exact_share(count, whole, wrong))

    @classmethod
    def of_ratio(cls, count: int, expected: float, wrong: float = 0.05) -> Estimate:
        """How many times as many came as were expected; the interval does not hold in this share of
        windows.
        """
        low, high = poisson(count, NormalDist().inv_cdf(1 - wrong / 2))
        return cls(count / expected, low / expected, high / expected)
