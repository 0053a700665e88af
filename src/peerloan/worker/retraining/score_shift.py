"""How far a new version leaps from the one that a person chose last, on the same loans.

A champion expects a late rate of each group of loans from their scores: so what a new version
expects beyond that is what the distribution of scores does not explain. Outcomes that are invented
(all late, late at random, turned round, late for one group) show as such a leap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from peerloan.book import Book, read_loans
from peerloan.loan import Loans
from peerloan.model import probabilities
from peerloan.monitoring.counting.counts import Counting
from peerloan.registry import Bundle
from peerloan.stats.arrays import Codes, Numbers

# A mean probability that grows or falls by more than these factors, of all loans or of a group, is
# for a person to look at. `python bench/leaps.py` measures what they let pass and what they stop.
FARTHEST, FARTHEST_GROUP = 2.0, 3.0
# Two versions that rank loans less alike than this are not one model, put right.
LEAST_ALIKE = 0.5
# A group is at least this share of the loans: of fewer a version may learn more.
_GROUP = 0.05


@dataclass(frozen=True)
class Leap:
    """A new version beside the one that a person chose last.

    `factor` is the new mean probability by the old one, of all loans; `farthest` the one of the
    group (`about`, such as a bin of a feature) in which it is farthest from 1; `alike` the rank
    correlation of both (Spearman).
    """

    against: str
    factor: float
    farthest: float
    about: str
    alike: float

    @property
    def is_too_far(self) -> bool:
        """Whether a person has to look at it first."""
        is_near = _within(self.factor, FARTHEST) and _within(self.farthest, FARTHEST_GROUP)
        return not (is_near and self.alike >= LEAST_ALIKE)

    def as_json(self) -> dict[str, Any]:
        """The figures as an event tells them."""
        return {
            "against": self.against,
            "factor": self.factor,
            "farthest": {"factor": self.farthest, "about": self.about},
            "rank_correlation": self.alike,
            "too_far": self.is_too_far,
        }

    def sentence(self) -> str:
        """The figures in words."""
        return (
            f"beside {self.against}, which a person chose last, its mean probability is "
            f"{self.factor:.2f} times as high, at most {self.farthest:.2f} times ({self.about}), "
            f"and the rank correlation is {self.alike:.2f}"
        )


def leap(before: Bundle, after: Bundle, newest: Book) -> Leap:
    """Measure a book by both versions; every row must be one that both can read.

    Raises BookError.
    """
    counting, bins = Counting.of(before), _Sums.of(Counting.of(before))
    first, second = [], []
    for part in newest.parts():
        old, new = (read_loans(each.definition, part).loans for each in (before, after))
        first.append(before.score_many(old)[0])
        second.append(after.score_many(new)[0])
        bins.add(counting, old, first[-1], second[-1])
    margins = np.concatenate(first), np.concatenate(second)
    factor, farthest, about = bins.farthest(counting)
    # Of loans that are all alike to one of them there is no order.
    spread = all(np.ptp(each) > 0 for each in margins)
    alike = float(spearmanr(*margins).statistic) if spread else 0.0
    return Leap(before.version, factor, farthest, about, alike)


def _within(factor: float, farthest: float) -> bool:
    return 1 / farthest <= factor <= farthest


@dataclass
class _Sums:
    """Loans and both versions' sums of probabilities, by bin of each feature and of the score."""

    loans: list[Numbers]
    before: list[Numbers]
    after: list[Numbers]

    @classmethod
    def of(cls, counting: Counting) -> _Sums:
        sizes = [each.size for each in counting.bins]
        return cls(*([np.zeros(size) for size in sizes] for _ in range(3)))

    def add(self, counting: Counting, loans: Loans, before: Numbers, after: Numbers) -> None:
        """Add loans, given their margins (n,)."""
        p, q = probabilities(before), probabilities(after)
        columns = [*(loans.columns[name] for name in loans.definition.names), p]
        for i, (bins, column) in enumerate(zip(counting.bins, columns, strict=True)):
            places: Codes = bins.places(column)
            self.loans[i] += np.bincount(places, minlength=bins.size)
            self.before[i] += np.bincount(places, p, minlength=bins.size)
            self.after[i] += np.bincount(places, q, minlength=bins.size)

    def farthest(self, counting: Counting) -> tuple[float, float, str]:
        """The factor of all loans, the one that is farthest from 1, and what it is of."""
        total = float(self.loans[-1].sum())
        factor = float(self.after[-1].sum() / self.before[-1].sum())
        found, about = factor, "all loans"
        groups = zip(
            counting.names, counting.bins, self.loans, self.before, self.after, strict=True
        )
        for name, bins, loans, before, after in groups:
            for i in np.flatnonzero(loans >= max(1.0, _GROUP * total)).tolist():
                own = float(after[i] / before[i])
                if abs(np.log(own)) > abs(np.log(found)):
                    found, about = own, f"{name} {bins.names[i]}"
        return factor, found, about
