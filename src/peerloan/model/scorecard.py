"""The scorecard: an additive model with one table of points per field.

margin = base + the sum of the points of all field values. The points of each field have mean 0 over
the training table. So points are the exact contributions to a decision, and `base` is the mean
margin. One loan is scored in plain Python, many loans in numpy, with equal results.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from peerloan.errors import PeerLoanError
from peerloan.loan import Definition, Field, Loans, Value
from peerloan.model.arithmetic import MAX_MARGIN, UNIT
from peerloan.stats.arrays import Numbers


class ScorecardError(PeerLoanError, ValueError):
    """A scorecard can't be used; the message gives the reason."""


class NumberTable(msgspec.Struct, frozen=True, tag_field="table", tag="number"):
    """Points of a number field: `points[i]` applies to edges[i−1] ≤ value < edges[i].

    `missing` applies to a missing value.
    """

    feature: str
    edges: tuple[float, ...]
    points: tuple[float, ...]
    missing: float


class LevelTable(msgspec.Struct, frozen=True, tag_field="table", tag="level"):
    """Points of a text field: `points[i]` applies to levels[i].

    `unseen` applies to a level that is not listed, `missing` to a missing value.
    """

    feature: str
    levels: tuple[str, ...]
    points: tuple[float, ...]
    unseen: float
    missing: float


Table = NumberTable | LevelTable
_Lookup = Callable[[Any], float]


class Scorecard(msgspec.Struct, frozen=True, dict=True):
    """A base margin and a table of points for each field, in the order of the definition."""

    base: float
    tables: tuple[Table, ...]

    def check(self, definition: Definition) -> None:
        """Raise ScorecardError unless the tables fit the definition and the arithmetic."""
        features = tuple(table.feature for table in self.tables)
        if features != definition.names:
            raise ScorecardError(
                f"tables: expected those of the fields {', '.join(definition.names)}, "
                f"given {', '.join(features)}"
            )
        largest = abs(self.base)
        for field, table in zip(definition.fields, self.tables, strict=True):
            _check_table(field, table)
            largest += max(map(abs, _all_points(table)))
        for value in (self.base, *(p for table in self.tables for p in _all_points(table))):
            if not math.isfinite(value) or not (value / UNIT).is_integer():
                raise ScorecardError(f"points: expected multiples of 2^-32, given {value!r}")
        if largest > MAX_MARGIN:
            raise ScorecardError(
                f"margin: expected at most {MAX_MARGIN:.0f}, given tables with up to {largest:.0f}"
            )

    @cached_property
    def _lookups(self) -> tuple[_Lookup, ...]:
        # One closure for each field: a look-up is then only a bisection or a dict access.
        return tuple(_make_lookup(table) for table in self.tables)

    def points(self, position: int, value: Value) -> float:
        """Return the points of a value of the field at this position."""
        return self._lookups[position](value)

    def score(self, values: Sequence[Value]) -> tuple[float, tuple[float, ...]]:
        """Return the margin and contributions of one loan; `values` in the order of the fields."""
        points = tuple([lookup(value) for lookup, value in zip(self._lookups, values, strict=True)])
        return self.base + sum(points), points

    def margin(self, values: Sequence[Value]) -> float:
        """Return the margin of one loan."""
        return self.score(values)[0]

    def score_many(self, loans: Loans) -> tuple[Numbers, Numbers]:
        """Return the margins (n,) and contributions (n, fields) of many loans, equal to `score`."""
        contributions = np.empty((loans.size, len(self.tables)), order="F")
        for i, table in enumerate(self.tables):
            if isinstance(table, NumberTable):
                values = loans.numbers(table.feature)
                index = np.searchsorted(np.array(table.edges), values, side="right")
                points = np.array((*table.points, table.missing))
                index[np.isnan(values)] = len(points) - 1
            else:
                points = np.array((*table.points, table.unseen, table.missing))
                # The code of a missing value is −1, which indexes the last entry.
                index = loans.texts(table.feature).recode(table.levels, len(table.levels))
            contributions[:, i] = points[index]
        return self.base + contributions.sum(axis=1), contributions

    def margins(self, loans: Loans) -> Numbers:
        """Return the margins (n,) of many loans."""
        return self.score_many(loans)[0]


def _check_table(field: Field, table: Table) -> None:
    """Raise ScorecardError unless a table is valid for a field; its points are not checked."""
    if field.is_number != isinstance(table, NumberTable):
        expected = "number" if field.is_number else "level"
        raise ScorecardError(
            f"{table.feature}: expected a {expected} table, because the field is of the kind "
            f"{field.kind}"
        )
    steps = table.edges if isinstance(table, NumberTable) else table.levels
    points = len(steps) + (1 if isinstance(table, NumberTable) else 0)
    if len(table.points) != points:
        raise ScorecardError(
            f"{table.feature}: expected {points} points, given {len(table.points)}"
        )
    if len(set(steps)) < len(steps):
        raise ScorecardError(f"{table.feature}: expected distinct edges or levels")
    if isinstance(table, NumberTable) and not (
        all(map(math.isfinite, table.edges)) and list(table.edges) == sorted(table.edges)
    ):
        raise ScorecardError(f"{table.feature}: expected finite edges in ascending order")


def _make_lookup(table: Table) -> _Lookup:
    missing, points = table.missing, table.points
    if isinstance(table, LevelTable):
        by_level: dict[Value, float] = dict(zip(table.levels, points, strict=False))
        by_level[None] = missing
        get, unseen = by_level.get, table.unseen
        return lambda value: get(value, unseen)
    edges = table.edges
    return lambda value: missing if value is None else points[bisect_right(edges, value)]


def _all_points(table: Table) -> tuple[float, ...]:
    unseen = () if isinstance(table, NumberTable) else (table.unseen,)
    return (*table.points, *unseen, table.missing)
