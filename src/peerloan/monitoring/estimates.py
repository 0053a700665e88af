"""Figures with their intervals."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

from peerloan.model.intervals import Z95, auc_interval, poisson, wilson


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
    def of_share(cls, count: int, whole: int) -> Estimate:
        """A share of at least one loan."""
        return cls(count / whole, *wilson(count, whole))

    @classmethod
    def of_ratio(cls, count: int, expected: float, wrong: float = 0.05) -> Estimate:
        """How many times as many came as were expected; the interval does not hold in this share of
        windows.
        """
        low, high = poisson(count, NormalDist().inv_cdf(1 - wrong / 2))
        return cls(count / expected, low / expected, high / expected)

    @classmethod
    def of_auc(cls, auc: float, late: int, on_time: int) -> Estimate:
        """The area under the ROC curve of so many late and on-time loans."""
        return cls(auc, *auc_interval(auc, late, on_time))
