"""Measure how far a new version's scores shift from an old version's, on the same loans.

The old version is the one that a person last made the champion. On the same loans, drift of the
loans changes both versions' scores alike. So a difference comes from the outcomes that the new
version was trained on. Invented outcomes (all late, late at random, inverted, late for one group)
cause a large one.
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
# person must review the version. `python bench/leaps.py` measures their effect.
MAX_FACTOR, MAX_GROUP_FACTOR = 2.0, 3.0
# Lowest rank correlation. Below it the new version ranks loans differently, instead of correcting
# the old one.
MIN_RANK_CORRELATION = 0.5
# Smallest share of all loans in a group. Smaller groups are not compared.
_MIN_GROUP_SHARE = 0.05


@dataclass(frozen=True)
class ScoreShift:
    """A new version compared with `against`, the version that a person last made the champion.

    - `factor`: the new mean probability divided by the old one, of all loans
    - `group_factor`: the same for the group in which it is farthest from 1
    - `group`: the name of that group, such as a bin of a feature
    - `rank_correlation`: of both versions' scores (Spearman)
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
        """Return the figures as they are in the JSON of an event."""
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
            f"compared with {self.against}, which a person promoted last, its mean probability is "
            f"{self.factor:.2f} times as high (farthest from 1: {self.group_factor:.2f} times, "
            f"{self.group}), and the rank correlation is {self.rank_correlation:.2f}"
        )


def measure_score_shift(before: Bundle, after: Bundle, book: Book) -> ScoreShift:
    """Compare two versions on a book, whose rows both must be able to read. Raises BookError."""
    counting = BinCounter.of(before)
    sums = _BinSums.of(counting)
    before_margins, after_margins = [], []
    for part in book.parts():
        old, new = (read_loans(version.definition, part).loans for version in (before, after))
        before_margins.append(before.score_many(old)[0])
        after_margins.append(after.score_many(new)[0])
        sums.add(counting, old, before_margins[-1], after_margins[-1])
    margins = np.concatenate(before_margins), np.concatenate(after_margins)
    factor, group_factor, group = sums.factors(counting)
    # There is no rank correlation if a version gives all loans the same score.
    has_ranks = all(np.ptp(scores) > 0 for scores in margins)
    rank_correlation = float(spearmanr(*margins).statistic) if has_ranks else 0.0
    return ScoreShift(before.version, factor, group_factor, group, rank_correlation)


def _within(factor: float, limit: float) -> bool:
    """Whether a factor is neither above a limit nor below its reciprocal."""
    return 1 / limit <= factor <= limit


@dataclass
class _BinSums:
    """Loans and both versions' sums of probabilities, in each bin of each feature and the score."""

    loans: list[Numbers]
    before: list[Numbers]
    after: list[Numbers]

    @classmethod
    def of(cls, counting: BinCounter) -> _BinSums:
        sizes = [bins.size for bins in counting.bins]
        return cls(*([np.zeros(size) for size in sizes] for _ in range(3)))

    def add(self, counting: BinCounter, loans: Loans, before: Numbers, after: Numbers) -> None:
        """Add loans; `before` and `after` are their margins (n,) by both versions."""
        old, new = probabilities(before), probabilities(after)
        columns = [*(loans.columns[name] for name in loans.definition.names), old]
        for i, (bins, column) in enumerate(zip(counting.bins, columns, strict=True)):
            places: Codes = bins.places(column)
            self.loans[i] += np.bincount(places, minlength=bins.size)
            self.before[i] += np.bincount(places, old, minlength=bins.size)
            self.after[i] += np.bincount(places, new, minlength=bins.size)

    def factors(self, counting: BinCounter) -> tuple[float, float, str]:
        """Return the factor of all loans, the group's factor farthest from 1, and this group."""
        total = float(self.loans[-1].sum())
        factor = float(self.after[-1].sum() / self.before[-1].sum())
        farthest, farthest_group = factor, "all loans"
        groups = zip(
            counting.names, counting.bins, self.loans, self.before, self.after, strict=True
        )
        for name, bins, loans, before, after in groups:
            for i in np.flatnonzero(loans >= max(1.0, _MIN_GROUP_SHARE * total)).tolist():
                group_factor = float(after[i] / before[i])
                if abs(np.log(group_factor)) > abs(np.log(farthest)):
                    farthest, farthest_group = group_factor, f"{name} {bins.names[i]}"
        return factor, farthest, farthest_group
