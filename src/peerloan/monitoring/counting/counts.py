"""The loans that a version decided on, as counts: the source of all figures of a window."""

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
_NAMED = 50
# Limit of cells, because a probability of 0 or 1 has no finite margin.
_FARTHEST = 1_000_000
# By cell of the margin: the number of loans; or of known outcomes and, of these, late ones.
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
        for own, more in zip(self.bins, other.bins, strict=True):
            own[:] = map(operator.add, own, more)
        self.strange = [_added(*both) for both in zip(self.strange, other.strange, strict=True)]
        for cell, count in other.cells.items():
            self.cells[cell] = self.cells.get(cell, 0) + count
        add_outcomes(self.outcomes, other.outcomes)
        for number, theirs in other.challengers.items():
            add_outcomes(self.challengers.setdefault(number, {}), theirs)


@dataclass(frozen=True)
class BinCounter:
    """Counts loans of a version in bins.

    `names`, `bins` and `shares` (of the reference) are of each feature and last of the probability;
    `threshold_margin` is the margin of the threshold.
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
        return Counts(0, [[0] * each.size for each in self.bins], [{} for _ in self.bins], {})

    def cells(self, margins: Numbers) -> Codes:
        """Return the cell of each margin."""
        found = np.floor((margins - self.threshold_margin) * CELLS)
        return np.clip(found, -_FARTHEST, _FARTHEST).astype(np.int64)

    def count(
        self, loans: Loans, margins: Numbers, groups: Codes, sign: int = 1
    ) -> dict[int, Counts]:
        """Count the loans of each group, given their margins (n,) and groups (n,).

        With `sign` −1 the counts are negative, to subtract loans.
        """
        different, own = np.unique(groups, return_inverse=True)
        columns = [
            *(loans.columns[name] for name in loans.definition.names),
            probabilities(margins),
        ]
        ends = np.cumsum([each.size for each in self.bins]).tolist()
        places = np.concatenate(
            [
                own * ends[-1] + end - bins.size + bins.places(column)
                for bins, column, end in zip(self.bins, columns, ends, strict=True)
            ]
        )
        counts = sign * np.bincount(places, minlength=len(different) * ends[-1])
        found = []
        for row in counts.reshape(len(different), -1).tolist():
            split = [row[end - bins.size : end] for bins, end in zip(self.bins, ends, strict=True)]
            found.append(Counts(sum(split[-1]), split, [{} for _ in self.bins], {}))
        for i, (bins, column) in enumerate(zip(self.bins, columns, strict=True)):
            rows, codes, names = bins.out_of_reference(column)
            for group, code, count in _tally(own[rows], codes):
                found[group].strange[i][names[code]] = sign * count
        for group, cell, count in _tally(own, self.cells(margins)):
            found[group].cells[cell] = sign * count
        return dict(zip(different.tolist(), found, strict=True))

    def scores(self, cells: Mapping[int, int | tuple[int, int]]) -> Scores | None:
        """Return the margins of counted cells, with outcomes if counted; None without loans."""
        kept = sorted((cell, count) for cell, count in cells.items() if np.any(count))
        if not kept:
            return None
        middles = self.threshold_margin + (np.array([cell for cell, _ in kept]) + 0.5) / CELLS
        loans = np.array([count for _, count in kept])
        return Scores(middles, *loans.T) if loans.ndim == 2 else Scores(middles, loans)


def add_outcomes(some: Outcomes, more: Outcomes) -> None:
    """Add known and late loans by cell."""
    for cell, (known, late) in more.items():
        before = some.get(cell, (0, 0))
        some[cell] = before[0] + known, before[1] + late


def _added(some: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """Merge counts of values and retain the most frequent ones.

    A count may be zero or negative if loans are subtracted whose value was dropped before.
    """
    if not more:
        return some
    both = Counter(some)
    both.update(more)
    return {name: count for name, count in both.most_common(_NAMED) if count > 0}


def _tally(groups: Codes, codes: Codes) -> Iterator[tuple[int, int, int]]:
    """Yield (group, code, count) for each code that occurs in a group."""
    if not len(codes):
        return iter(())
    low = int(codes.min())
    width = int(codes.max()) - low + 1
    different, counts = np.unique(groups * width + (codes - low), return_counts=True)
    where = (different // width).tolist(), (different % width + low).tolist()
    return zip(*where, counts.tolist(), strict=True)
