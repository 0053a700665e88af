"""Figures with their intervals."""

from __future__ import annotations

from typing import NamedTuple

from peerloan.model.intervals import auc_interval, wilson


class Estimate(NamedTuple):
    """A figure, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_share(cls, count: int, whole: int) -> Estimate:
        """A share of at least one loan."""
        return cls(count / whole, *wilson(count, whole))

    @classmethod
    def of_auc(cls, auc: float, late: int, on_time: int) -> Estimate:
        """The area under the ROC curve of so many late and on-time loans."""
        return cls(auc, *auc_interval(auc, late, on_time))
