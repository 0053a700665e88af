"""Figures with their confidence intervals."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

from peerloan.stats.intervals import Z95, exact_share, poisson


class Estimate(NamedTuple):
    """A figure and the ends of its interval, a 95 % one unless a method's `significance` differs.

    An interval of significance 0.05 does not contain the true value in at most 5 % of samples.
    """

    value: float
    low: float
    high: float

    def with_significance(self, significance: float) -> Estimate:
        """The figure with an interval of another significance.

        Each side of the 95 % interval is scaled as that of a normal distribution.
        """
        factor = NormalDist().inv_cdf(1 - significance / 2) / Z95
        low, high = (self.value + factor * (end - self.value) for end in self[1:])
        return Estimate(self.value, low, high)

    @classmethod
    def of_share(cls, count: int, total: int, significance: float = 0.05) -> Estimate:
        """The share `count` / `total`, with its exact interval; `total` is at least 1."""
        return cls(count / total, *exact_share(count, total, significance))

    @classmethod
    def of_ratio(cls, count: int, expected: float, significance: float = 0.05) -> Estimate:
        """The ratio of a counted number of events to the expected one, with a Poisson interval."""
        low, high = poisson(count, NormalDist().inv_cdf(1 - significance / 2))
        return cls(count / expected, low / expected, high / expected)
