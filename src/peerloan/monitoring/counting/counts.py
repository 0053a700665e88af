"""Counts of the loans that a version decided on. All figures of a window derive from them."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from peerloan.loan import Loans
from peerloan.model import probabilities
from peerloan.monitoring.counting.bins import Bins, bins_of
from peerloan.monitoring.performance import CELLS, Scores
from peerloan.registry import Bundle
from peerloan.stats.arrays import Codes, Numbers

# Most values outside the reference that are counted by name.
_MAX_VALUES = 50
# Limit of the cells' numbers. A probability of 0 or 1 has no finite margin.
_MAX_CELL = 1_000_000
# By cell of the margin: numbers of loans; pairs of known outcomes and late ones among them.
Cells = dict[int, int]
Outcomes = dict[int, tuple[int, int]]


class Counts(msgspec.Struct):
    """Counts of loans, summed over any number of decisions.

    - `bins`: loans in each bin, for each feature and last the probability
    - `strange`: loans by value outside the reference, for the same columns
    - `cells`: loans by cell of the margin
    - `outcomes`: known and late loans by cell of the margin
    - `challengers`: the same by cell of a challenger's own margin, by its number in the ledger
    """

    loans: int
    bins: list[list[int]]
    strange: list[dict[str, int]]
    cells: Cells
    outcomes: Outcomes = {}
    challengers: dict[int, Outcomes] = {}

    def add(self, other: Counts) -> None:
        """Add the counts of other loans."""
        self.loans += other.loans
        for bins, more in zip(self.bins, other.bins, strict=True):
            bins[:] = map(operator.add, bins, more)
        self.strange = [_merge(*pair) for pair in zip(self.strange, other.strange, strict=True)]
        for cell, count in other.cells.items():
            self.cells[cell] = self.cells.get(cell, 0) + count
        add_outcomes(self.outcomes, other.outcomes)
        for number, outcomes in other.challengers.items():
            add_outcomes(self.challengers.setdefault(number, {}), outcomes)


@dataclass(frozen=True)
class BinCounter:
    """Counts the loans of a version in bins.

    `names`, `bins` and the reference's `shares` have an entry for each feature and, last, for the
    probability. `threshold_margin` is the version's threshold in log-odds.
    """

    names: list[str]
    bins: list[Bins]
    shares: list[Numbers]
    threshold_margin: float

    @classmethod
    def of(cls, bundle: Bundle) -> BinCounter:
        """Make the counter of a version."""
        columns = [*bundle.profile.columns, bundle.profile.probability]
        bins, shares = zip(*map(bins_of, columns), strict=True)
        names = [column.name for column in columns]
        return cls(names, list(bins), list(shares), bundle.policy.threshold_margin)

    def empty(self) -> Counts:
        """Return counts of no loans."""
        return Counts(0, [[0] * bins.size for bins in self.bins], [{} for _ in self.bins], {})

    def cells(self, margins: Numbers) -> Codes:
        """Return the cell of each margin (n,)."""
        cells = np.floor((margins - self.threshold_margin) * CELLS)
        return np.clip(cells, -_MAX_CELL, _MAX_CELL).astype(np.int64)

    def count(
        self, loans: Loans, margins: Numbers, groups: Codes, sign: int = 1
    ) -> dict[int, Counts]:
        """Count loans by group; `margins` (n,) and `groups` (n,) are those of the loans.

        With `sign` −1 the counts are negative, to subtract loans.
        """
        group_keys, group_of_loan = np.unique(groups, return_inverse=True)
        columns = [
            *(loans.columns[name] for name in loans.definition.names),
            probabilities(margins),
        ]
        ends = np.cumsum([bins.size for bins in self.bins]).tolist()
        places = np.concatenate(
            [
                group_of_loan * ends[-1] + end - bins.size + bins.places(column)
                for bins, column, end in zip(self.bins, columns, ends, strict=True)
            ]
        )
        counts = sign * np.bincount(places, minlength=len(group_keys) * ends[-1])
        by_group = []
        for row in counts.reshape(len(group_keys), -1).tolist():
            split = [row[end - bins.size : end] for bins, end in zip(self.bins, ends, strict=True)]
            by_group.append(Counts(sum(split[-1]), split, [{} for _ in self.bins], {}))
        for i, (bins, column) in enumerate(zip(self.bins, columns, strict=True)):
            rows, codes, names = bins.out_of_reference(column)
            for group, code, count in _tally(group_of_loan[rows], codes):
                by_group[group].strange[i][names[code]] = sign * count
        for group, cell, count in _tally(group_of_loan, self.cells(margins)):
            by_group[group].cells[cell] = sign * count
        return dict(zip(group_keys.tolist(), by_group, strict=True))

    def scores(self, cells: Mapping[int, int | tuple[int, int]]) -> Scores | None:
        """Convert counts by cell to scores, with the middles of the cells as margins.

        The scores have outcomes if `cells` are pairs of known and late loans. None without loans.
        """
        filled = sorted((cell, count) for cell, count in cells.items() if np.any(count))
        if not filled:
            return None
        middles = self.threshold_margin + (np.array([cell for cell, _ in filled]) + 0.5) / CELLS
        loans = np.array([count for _, count in filled])
        return Scores(middles, *loans.T) if loans.ndim == 2 else Scores(middles, loans)


def add_outcomes(total: Outcomes, more: Outcomes) -> None:
    """Add known and late loans by cell to a total."""
    for cell, (known, late) in more.items():
        before = total.get(cell, (0, 0))
        total[cell] = before[0] + known, before[1] + late


def _merge(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """Add counts of values. Only the most frequent values are retained.

    A sum is zero or negative if a value was dropped before and its loans are subtracted now; it is
    dropped too.
    """
    if not more:
        return counts
    sums = Counter(counts)
    sums.update(more)
    return {name: count for name, count in sums.most_common(_MAX_VALUES) if count > 0}


def _tally(groups: Codes, codes: Codes) -> Iterator[tuple[int, int, int]]:
    """Yield (group, code, count) for each code that occurs in a group."""
    if not len(codes):
        return iter(())
    low = int(codes.min())
    width = int(codes.max()) - low + 1
    pairs, counts = np.unique(groups * width + (codes - low), return_counts=True)
    columns = (pairs // width).tolist(), (pairs % width + low).tolist()
    return zip(*columns, counts.tolist(), strict=True)
