"""Bins of each feature and of the probability, derived from a version's reference profile.

Loans are counted in these bins. All drift figures are computed from the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.loan import Column, TextColumn
from peerloan.model.reference_profile import ColumnProfile, LevelProfile
from peerloan.stats.arrays import Codes, Numbers

# Every second quantile of the profile: 10 %, 20 %, … 90 %.
_STEPS = range(2, 19, 2)
# The bin of levels that are not in the reference.
NEW = "(new)"


class OutOfReference(NamedTuple):
    """Values outside the reference: their rows (k,), and their positions in `names` (k,)."""

    rows: Codes
    codes: Codes
    names: list[str]


@dataclass(frozen=True)
class NumberBins:
    """Ten bins of about equal size, (−∞, e₁], (e₁, e₂], … (e₉, ∞), and one for missing values.

    There are fewer bins if values repeat. `low` and `high` are the range of the reference.
    """

    edges: Numbers
    low: float
    high: float

    @property
    def names(self) -> list[str]:
        """The name of each bin, which describes its content."""
        edges = [f"{edge:g}" for edge in self.edges.tolist()]
        if not edges:
            return ["any", "missing"]
        between = [f"({low}, {high}]" for low, high in pairwise(edges)]
        return [f"≤ {edges[0]}", *between, f"> {edges[-1]}", "missing"]

    @property
    def size(self) -> int:
        """The number of bins."""
        return len(self.edges) + 2

    def places(self, column: Column) -> Codes:
        """Return the bin of each loan, given the values (n,)."""
        assert not isinstance(column, TextColumn)  # noqa: S101  by the definition
        bins = np.searchsorted(self.edges, column, side="left")
        return np.where(np.isnan(column), len(self.edges) + 1, bins)

    def out_of_reference(self, column: Column) -> OutOfReference:
        """Find the loans with a value outside the reference's range."""
        assert not isinstance(column, TextColumn)  # noqa: S101  by the definition
        rows = np.flatnonzero((column < self.low) | (column > self.high))
        names = [f"below {self.low:g}", f"above {self.high:g}"]
        return OutOfReference(rows, (column[rows] > self.high).astype(np.int64), names)


@dataclass(frozen=True)
class LevelBins:
    """A bin for each level of the reference, one for new levels, and one for missing values."""

    levels: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The name of each bin, which describes its content."""
        return [*self.levels, NEW, "missing"]

    @property
    def size(self) -> int:
        """The number of bins."""
        return len(self.levels) + 2

    def places(self, column: Column) -> Codes:
        """Return the bin of each loan, given the values (n,)."""
        assert isinstance(column, TextColumn)  # noqa: S101  by the definition
        codes = column.recode(self.levels, unseen=len(self.levels))
        return np.where(codes < 0, len(self.levels) + 1, codes)

    def out_of_reference(self, column: Column) -> OutOfReference:
        """Find the loans whose level is not in the reference."""
        assert isinstance(column, TextColumn)  # noqa: S101  by the definition
        rows = np.flatnonzero(self.places(column) == len(self.levels))
        return OutOfReference(rows, column.codes[rows], list(column.levels))


Bins = NumberBins | LevelBins


def bins_of(profile: ColumnProfile) -> tuple[Bins, npt.NDArray[np.float64]]:
    """Return a column's bins, and the reference's share of loans in each."""
    if isinstance(profile, LevelProfile):
        return LevelBins(profile.levels), np.array([*profile.shares, 0.0, profile.missing])
    if not profile.quantiles:
        empty = NumberBins(np.array([]), np.inf, -np.inf)
        return empty, np.array([1 - profile.missing, profile.missing])
    # Versions of earlier releases don't store `at_most`. Then use the position of each quantile; of
    # equal quantiles, that of the last.
    last = np.searchsorted(profile.quantiles, profile.quantiles, side="right") - 1
    at_most = profile.at_most or tuple((last / (len(profile.quantiles) - 1)).tolist())
    edges = {profile.quantiles[i]: at_most[i] for i in _STEPS}
    below = np.array([0.0, *edges.values(), 1.0])
    shares = np.append(np.diff(below) * (1 - profile.missing), profile.missing)
    bins = NumberBins(np.array([*edges]), profile.quantiles[0], profile.quantiles[-1])
    return bins, shares
