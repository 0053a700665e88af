"""Compile additive estimators to scorecards.

For any number and level, and for missing and unseen values, the scorecard equals the sum of the
estimator's parts in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import xgboost

from peerloan.loan import Definition, Field, Loans
from peerloan.model import Encoding, LevelTable, NumberTable, Scorecard
from peerloan.model.arithmetic import to_unit
from peerloan.model.encoding import to_single
from peerloan.stats.arrays import Numbers
from peerloan.training.compile.trees import trees_of_booster

# The power of two after the largest single; rounding treats it as infinity.
_BEYOND = 2.0**128


def exact_edge(threshold: float) -> float:
    """Return the smallest double whose nearest single is at least `threshold`, a single.

    XGBoost rounds a value to single precision and then compares it with the threshold. Comparing
    the double with this edge gives the same result for every double.
    """
    single = np.float32(threshold)
    if single == -np.inf:  # nothing is below it
        return -math.inf
    with np.errstate(over="ignore"):
        below = np.nextafter(single, np.float32(-np.inf))
        # The middle of two neighbouring singles, exact in doubles. A tie rounds to the even single.
        middle = (min(float(single), _BEYOND) + max(float(below), -_BEYOND)) / 2
        return middle if np.float32(middle) == single else math.nextafter(middle, math.inf)


@dataclass(frozen=True)
class _Part:
    """The contribution of one field to an estimator's margin, in log-odds.

    A number has points below the first of `edges`, and from each edge on. A category has points by
    level. `unseen` and `missing` are the points of an unseen and of a missing value.
    """

    edges: tuple[float, ...]
    levels: tuple[str, ...]
    points: Numbers
    unseen: float
    missing: float


def compile_trees(booster: xgboost.Booster, encoding: Encoding, loans: Loans) -> Scorecard:
    """Compile a booster; points are relative to the mean over `loans`.

    The margins equal the booster's. Raises ValueError unless every tree splits on columns of one
    field alone.
    """
    trees = _Trees(booster, encoding, loans.definition)
    parts = [_part_of_trees(trees, field, loans) for field in loans.definition.fields]
    return _centred(trees.base, parts, loans)


def compile_bins(
    base: float,
    values_at: Callable[[Field, Loans], Numbers],
    edges_of: Callable[[Field], Sequence[float]],
    loans: Loans,
) -> Scorecard:
    """Compile a model that adds one value for each bin.

    `values_at(field, probes)` returns the field's contribution to the margin of each probe (n,).
    `edges_of(field)` returns the doubles at which a number's next bin begins.
    """
    parts = []
    for field in loans.definition.fields:
        edges = tuple(edges_of(field)) if field.is_number else ()
        levels = _levels(field, loans)
        probes = _probes(field, edges, levels, loans.definition)
        parts.append(_part(edges, levels, values_at(field, probes)))
    return _centred(base, parts, loans)


def rescaled(scorecard: Scorecard, slope: float, intercept: float) -> Scorecard:
    """Return a scorecard with the margins slope · margin + intercept, rounded to its unit.

    The calibration changes the tables, so reasons remain exact.
    """
    tables: list[NumberTable | LevelTable] = []
    for table in scorecard.tables:
        changed: dict[str, Any] = {
            "points": tuple(float(to_unit(point * slope)) for point in table.points),
            "missing": float(to_unit(table.missing * slope)),
        }
        if isinstance(table, LevelTable):
            changed["unseen"] = float(to_unit(table.unseen * slope))
        tables.append(msgspec.structs.replace(table, **changed))
    return Scorecard(float(to_unit(scorecard.base * slope + intercept)), tuple(tables))


class _Trees:
    """A booster's trees, and the field that each tree splits on."""

    def __init__(
        self, booster: xgboost.Booster, encoding: Encoding, definition: Definition
    ) -> None:
        self._booster, self._encoding = booster, encoding
        self.base, self._trees = trees_of_booster(booster)
        field_of_column = encoding.field_indexes(definition)
        self._fields: list[int] = []
        self._thresholds: dict[int, set[float]] = {}
        for tree in self._trees:
            inner = ~tree.leaf
            fields = set(field_of_column[tree.column[inner]].tolist())
            if len(fields) > 1:
                raise ValueError("a tree that splits on two fields is not additive")
            if not fields:  # a tree without a split
                self.base += float(tree.value[0])
            self._fields.append(fields.pop() if fields else -1)
            splits = zip(tree.column[inner].tolist(), tree.threshold[inner].tolist(), strict=True)
            for column, threshold in splits:
                self._thresholds.setdefault(column, set()).add(threshold)

    def values(self, field: int, probes: Loans) -> Numbers:
        """Return the sum (n,) of this field's trees, in double precision, for each probe."""
        matrix = xgboost.DMatrix(to_single(self._encoding.matrix(probes)))
        leaves = self._booster.predict(matrix, pred_leaf=True).astype(np.int64)
        leaves = leaves.reshape(probes.size, -1)
        sums = np.zeros(probes.size)
        for i, (tree_field, tree) in enumerate(zip(self._fields, self._trees, strict=True)):
            if tree_field == field:
                sums += tree.value[leaves[:, i]]
        return sums

    def edges(self, field: Field) -> tuple[float, ...]:
        """Return the doubles at which a tree of a number's field takes the other branch."""
        value = next(
            i
            for i, column in enumerate(self._encoding.columns)
            if column.field == field.name and column.make == "value"
        )
        edges = set(map(exact_edge, self._thresholds.get(value, ())))
        # A split with all numbers on one side separates only missing values.
        edges.discard(-math.inf)
        return tuple(sorted(edges))


def _part_of_trees(trees: _Trees, field: Field, loans: Loans) -> _Part:
    edges = trees.edges(field) if field.is_number else ()
    levels = _levels(field, loans)
    probes = _probes(field, edges, levels, loans.definition)
    position = loans.definition.names.index(field.name)
    return _part(edges, levels, trees.values(position, probes))


def _levels(field: Field, loans: Loans) -> tuple[str, ...]:
    if field.is_number:
        return ()
    return field.levels if field.kind == "ordered" else loans.texts(field.name).levels


def _probes(
    field: Field, edges: tuple[float, ...], levels: tuple[str, ...], definition: Definition
) -> Loans:
    """Make a loan for each cell of a field's table, one with an unseen value, one with none.

    Other fields are missing: this field's contributions don't depend on them.
    """
    cells: list[float | str | None]
    if field.is_number:
        # The value of a cell is its lower end; below the first edge it is the lowest double.
        cells = [-np.finfo(np.float64).max, *edges, None, None]
    else:
        # No level has a control character.
        cells = [*levels, "\0", None]
    none = [None] * len(cells)
    columns = [cells if other.name == field.name else none for other in definition.fields]
    return Loans.of(definition, list(zip(*columns, strict=True)))


def _part(edges: tuple[float, ...], levels: tuple[str, ...], values: Numbers) -> _Part:
    points, unseen, missing = values[:-2], float(values[-2]), float(values[-1])
    if levels:
        # A level with the points of an unseen value is left out of the table.
        listed = [i for i, point in enumerate(points.tolist()) if point != unseen]
        levels, points = tuple(levels[i] for i in listed), points[listed]
    return _Part(edges, levels, points, unseen, missing)


def _centred(base: float, parts: Sequence[_Part], loans: Loans) -> Scorecard:
    """Make a scorecard of points relative to their mean over `loans`, as multiples of 2⁻³²."""
    tables: list[NumberTable | LevelTable] = []
    mean_margin = base
    for field, part in zip(loans.definition.fields, parts, strict=True):
        mean = float(_points_of(field, part, loans).mean())
        mean_margin += mean
        points = tuple(to_unit(part.points - mean).tolist())
        missing = float(to_unit(part.missing - mean))
        if field.is_number:
            tables.append(NumberTable(field.name, part.edges, points, missing))
        else:
            unseen = float(to_unit(part.unseen - mean))
            tables.append(LevelTable(field.name, part.levels, points, unseen, missing))
    return Scorecard(float(to_unit(mean_margin)), tuple(tables))


def _points_of(field: Field, part: _Part, loans: Loans) -> Numbers:
    """Return the part's contribution for each loan."""
    points = np.concatenate([part.points, [part.unseen, part.missing]])
    index: npt.NDArray[np.int64]
    if field.is_number:
        values = loans.numbers(field.name)
        index = np.searchsorted(np.array(part.edges), values, side="right")
        index[np.isnan(values)] = len(points) - 1
    else:
        index = loans.texts(field.name).recode(part.levels, len(part.points))
    return points[index]
