"""The scorecard: one additive table per feature, read in plain Python or in numpy.

margin = base + Σ points of each feature's value. Points are relative to the training table's mean,
so they are the exact contributions of a decision, and `base` is the mean margin.
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
from peerloan.loan import Definition, Loans, Value
from peerloan.model.arithmetic import MAX_MARGIN, UNIT
from peerloan.stats.arrays import Numbers


class ScorecardError(PeerLoanError, ValueError):
    """A scorecard that can't be used, and why."""


class NumberTable(msgspec.Struct, frozen=True, tag_field="table", tag="number"):
    """Points by value: `points[i]` holds for edges[i−1] ≤ value < edges[i]."""

    feature: str
    edges: tuple[float, ...]
    points: tuple[float, ...]
    missing: float


class LevelTable(msgspec.Struct, frozen=True, tag_field="table", tag="level"):
    """Points by level, and for any level that isn't listed."""

    feature: str
    levels: tuple[str, ...]
    points: tuple[float, ...]
    unseen: float
    missing: float


Table = NumberTable | LevelTable
_Lookup = Callable[[Any], float]


class Scorecard(msgspec.Struct, frozen=True, dict=True):
    """Additive tables in the order of the definition's fields; a `Model`."""

    base: float
    tables: tuple[Table, ...]

    def check(self, definition: Definition) -> None:
        """Raise ScorecardError unless the tables fit the definition and the arithmetic."""
        features = tuple(table.feature for table in self.tables)
        if features != definition.names:
            raise ScorecardError(
                f"tables for {', '.join(features)}; "
                f"the definition has {', '.join(definition.names)}"
            )
        largest = abs(self.base)
        for field, table in zip(definition.fields, self.tables, strict=True):
            if field.is_number != isinstance(table, NumberTable):
                raise ScorecardError(f"{table.feature}: a {field.kind} field needs the other table")
            steps = table.edges if isinstance(table, NumberTable) else table.levels
            due = len(steps) + (1 if isinstance(table, NumberTable) else 0)
            if len(table.points) != due:
                raise ScorecardError(
                    f"{table.feature}: {due} points due, {len(table.points)} given"
                )
            if len(set(steps)) < len(steps) or (
                isinstance(table, NumberTable)
                and not (
                    all(map(math.isfinite, table.edges))
                    and list(table.edges) == sorted(table.edges)
                )
            ):
                raise ScorecardError(f"{table.feature}: edges must rise, levels must differ")
            largest += max(map(abs, _all_points(table)))
        for value in (self.base, *(p for table in self.tables for p in _all_points(table))):
            if not math.isfinite(value) or not (value / UNIT).is_integer():
                raise ScorecardError(f"{value!r} is no multiple of 2^-32")
        if largest > MAX_MARGIN:
            raise ScorecardError(
                f"margins up to {largest:.0f}; at most {MAX_MARGIN:.0f} are allowed"
            )

    @cached_property
    def _lookups(self) -> tuple[_Lookup, ...]:
        # One closure a feature: a look-up costs a bisection or a dict access, and nothing else.
        return tuple(_lookup(table) for table in self.tables)

    def points(self, position: int, value: Value) -> float:
        """What a value of the field at this position contributes."""
        return self._lookups[position](value)

    def score(self, values: Sequence[Value]) -> tuple[float, tuple[float, ...]]:
        """Margin and contributions of one loan, given its values in the fields' order."""
        points = tuple([lookup(value) for lookup, value in zip(self._lookups, values, strict=True)])
        return self.base + sum(points), points

    def margin(self, values: Sequence[Value]) -> float:
        """Margin of one loan."""
        return self.score(values)[0]

    def score_many(self, loans: Loans) -> tuple[Numbers, Numbers]:
        """Margins (n,) and contributions (n, features) of many loans; equal to `score` of each."""
        contributions = np.empty((loans.size, len(self.tables)), order="F")
        for i, table in enumerate(self.tables):
            if isinstance(table, NumberTable):
                values = loans.numbers(table.feature)
                index = np.searchsorted(np.array(table.edges), values, side="right")
                points = np.array((*table.points, table.missing))
                index[np.isnan(values)] = len(points) - 1
            else:
                points = np.array((*table.points, table.unseen, table.missing))
                # −1, a missing level, reads the last one.
                index = loans.texts(table.feature).recode(table.levels, len(table.levels))
            contributions[:, i] = points[index]
        return self.base + contributions.sum(axis=1), contributions

    def margins(self, loans: Loans) -> Numbers:
        """Margins (n,) of many loans."""
        return self.score_many(loans)[0]


def _lookup(table: Table) -> _Lookup:
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
