"""Measures how far a new version shifts from the one that a person chose last, on the same loans.

The old version expects a late rate of each group of loans from their scores. What a new version
expects beyond that is not explained by the distribution of scores. Invented outcomes (all late,
late at random, inverted, late for one group) cause such a shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from peerloan.book import Book, read_loans
from peerloan.loan import Loans
from peerloan.model import probabilities
from peerloan.monitoring.counting.counts import BinCounter
from peerloan.registry import Bundle
from peerloan.stats.arrays import Codes, Numbers

# If the mean probability of all loans, or of a group, rises or falls by more than these factors, a
# person must review the version. `python bench/leaps.py` measures which shifts they accept and
# refuse.
MAX_FACTOR, MAX_GROUP_FACTOR = 2.0, 3.0
# Lowest rank correlation: below it the new version is another model, not a corrected one.
MIN_RANK_CORRELATION = 0.5
# Smallest share of loans in a group; smaller groups may change more.
_GROUP = 0.05


@dataclass(frozen=True)
class ScoreShift:
    """A new version compared with the one that a person chose last (`against`).

    - `factor`: the new mean probability divided by the old one, of all loans
    - `farthest`: the same of the group in which it is farthest from 1; `about` names the group,
      such as a bin of a feature
    - `alike`: the rank correlation of both (Spearman)
    """

    against: str
    factor: float
    group_factor: float
    group: str
    rank_correlation: float

    @property
    def is_too_far(self) -> bool:
        """Whether a person must review the version before it is promoted."""
        is_near = _within(self.factor, MAX_FACTOR) and _within(self.group_factor, MAX_GROUP_FACTOR)
        return not (is_near and self.rank_correlation >= MIN_RANK_CORRELATION)

    def as_json(self) -> dict[str, Any]:
        """Return the figures as they are in an event."""
        return {
            "against": self.against,
            "factor": self.factor,
            "farthest": {"factor": self.group_factor, "about": self.group},
            "rank_correlation": self.rank_correlation,
            "too_far": self.is_too_far,
        }

    def sentence(self) -> str:
        """Describe the figures in a sentence."""
        return (
            f"compared with {self.against}, which a person chose last, its mean probability is "
            f"{self.factor:.2f} times as high, at most {self.group_factor:.2f} times "
            f"({self.group}), and the rank correlation is {self.rank_correlation:.2f}"
        )


def measure_score_shift(before: Bundle, after: Bundle, newest: Book) -> ScoreShift:
    """Compare two versions on a book. Both must be able to read every row.

    Raises BookError.
    """
    counting, bins = BinCounter.of(before), _Sums.of(BinCounter.of(before))
    first, second = [], []
    for part in newest.parts():
        old, new = (read_loans(each.definition, part).loans for each in (before, after))
        first.append(before.score_many(old)[0])
        second.append(after.score_many(new)[0])
        bins.add(counting, old, first[-1], second[-1])
    margins = np.concatenate(first), np.concatenate(second)
    factor, farthest, about = bins.farthest(counting)
    # No rank correlation if a version gives all loans the same score.
    spread = all(np.ptp(each) > 0 for each in margins)
    alike = float(spearmanr(*margins).statistic) if spread else 0.0
    return ScoreShift(before.version, factor, farthest, about, alike)


def _within(factor: float, farthest: float) -> bool:
    return 1 / farthest <= factor <= farthest


@dataclass
class _Sums:
    """Numbers of loans and both versions' sums of probabilities, by bin of feature and score."""

    loans: list[Numbers]
    before: list[Numbers]
    after: list[Numbers]

    @classmethod
    def of(cls, counting: BinCounter) -> _Sums:
        sizes = [each.size for each in counting.bins]
        return cls(*([np.zeros(size) for size in sizes] for _ in range(3)))

    def add(self, counting: BinCounter, loans: Loans, before: Numbers, after: Numbers) -> None:
        """Add loans, given their margins (n,)."""
        p, q = probabilities(before), probabilities(after)
        columns = [*(loans.columns[name] for name in loans.definition.names), p]
        for i, (bins, column) in enumerate(zip(counting.bins, columns, strict=True)):
            places: Codes = bins.places(column)
            self.loans[i] += np.bincount(places, minlength=bins.size)
            self.before[i] += np.bincount(places, p, minlength=bins.size)
            self.after[i] += np.bincount(places, q, minlength=bins.size)

    def farthest(self, counting: BinCounter) -> tuple[float, float, str]:
        """Return the factor of all loans, the factor farthest from 1, and its group."""
        total = float(self.loans[-1].sum())
        factor = float(self.after[-1].sum() / self.before[-1].sum())
        farthest, about = factor, "all loans"
        groups = zip(
            counting.names, counting.bins, self.loans, self.before, self.after, strict=True
        )
        for name, bins, loans, before, after in groups:
            for i in np.flatnonzero(loans >= max(1.0, _GROUP * total)).tolist():
                group_factor = float(after[i] / before[i])
                if abs(np.log(group_factor)) > abs(np.log(farthest)):
                    farthest, about = group_factor, f"{name} {bins.names[i]}"
        return factor, farthest, about
