"""Compiling fitted estimators into what is deployed.

Stumps become a scorecard that equals the double-precision sum of the booster's leaves; a forest
becomes ONNX that decides at every split as scikit-learn does.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import skl2onnx
import xgboost
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier

from peerloan.loan import Definition, Loans
from peerloan.model import Encoding, LevelTable, NumberTable, Scorecard
from peerloan.model.arithmetic import to_unit

# The power of two after the largest single: where rounding has infinity.
_BEYOND = 2.0**128


def exact_edge(threshold: float) -> float:
    """The smallest double whose nearest single is at least `threshold`, itself a single.

    XGBoost rounds a value to single precision and then asks whether it is below the threshold;
    asking whether the double is below this edge gives the same answer for every double.
    """
    single = np.float32(threshold)
    if single == -np.inf:  # nothing is below it
        return -math.inf
    with np.errstate(over="ignore"):
        below = np.nextafter(single, np.float32(-np.inf))
        # Half-way between two neighbouring singles: exact in doubles. Ties round to the even one.
        middle = (min(float(single), _BEYOND) + max(float(below), -_BEYOND)) / 2
        return middle if np.float32(middle) == single else math.nextafter(middle, math.inf)


def floor_single(thresholds: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    """The largest singles that are not above these doubles.

    For a single x and a double t, x ≤ t holds exactly when x ≤ floor_single(t): so thresholds can
    be stored in single precision without moving one split.
    """
    with np.errstate(over="ignore"):
        singles = thresholds.astype(np.float32)
        below = np.nextafter(singles, np.float32(-np.inf))
    return np.where(singles > thresholds, below, singles)


@dataclass
class _Steps:
    """The sum of all stumps on one encoded column: a step function, and a value for missing."""

    start: float = 0.0
    rises: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    missing: float = 0.0

    def at(self, value: float) -> float:
        if math.isnan(value):
            return self.missing
        return self.start + math.fsum(rise for edge, rise in self.rises.items() if edge <= value)

    def table(self) -> tuple[list[float], list[float]]:
        """Edges, and the sums between them."""
        edges = sorted(self.rises)
        sums = np.concatenate([[self.start], [self.rises[edge] for edge in edges]]).cumsum()
        return edges, sums.tolist()


def compile_stumps(booster: xgboost.Booster, encoding: Encoding, loans: Loans) -> Scorecard:
    """A scorecard with the booster's margins; points are relative to the mean over `loans`."""
    base, steps = _read_stumps(booster, len(encoding.columns))
    raw = Scorecard(base, tuple(_tables(loans.definition, encoding, steps)))
    _, contributions = raw.score_many(loans)
    means = contributions.mean(axis=0)
    tables = []
    for table, mean in zip(raw.tables, means.tolist(), strict=True):
        centred = {"missing": float(to_unit(table.missing - mean))}
        if isinstance(table, LevelTable):
            centred["unseen"] = float(to_unit(table.unseen - mean))
        points = tuple(float(to_unit(point - mean)) for point in table.points)
        parts = {name: getattr(table, name) for name in table.__struct_fields__}
        tables.append(type(table)(**(parts | centred | {"points": points})))
    return Scorecard(float(to_unit(base + math.fsum(means))), tuple(tables))


def _read_stumps(booster: xgboost.Booster, columns: int) -> tuple[float, list[_Steps]]:
    """The intercept in log-odds, and the step function of each encoded column."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    start = float(np.float32(learner["learner_model_param"]["base_score"].strip("[]")))
    base = math.log(start / (1 - start))
    steps = [_Steps() for _ in range(columns)]
    for tree in learner["gradient_booster"]["model"]["trees"]:
        conditions = [float(np.float32(value)) for value in tree["split_conditions"]]
        left, right = tree["left_children"][0], tree["right_children"][0]
        if left == -1:  # a tree without a split
            base += conditions[0]
            continue
        if len(conditions) != 3:
            raise ValueError("a tree of depth 2 or more is not additive")
        # A leaf's value stands where an inner node has its threshold.
        low, high = conditions[left], conditions[right]
        column = steps[tree["split_indices"][0]]
        column.start += low
        column.rises[exact_edge(conditions[0])] += high - low
        column.missing += low if tree["default_left"][0] else high
    return base, steps


def _tables(
    definition: Definition, encoding: Encoding, steps: list[_Steps]
) -> list[NumberTable | LevelTable]:
    by_field = defaultdict(list)
    for column, step in zip(encoding.columns, steps, strict=True):
        by_field[column.field].append((column, step))
    tables: list[NumberTable | LevelTable] = []
    for each in definition.fields:
        columns = by_field[each.name]
        if each.is_number:
            step = columns[0][1]
            edges, points = step.table()
            tables.append(NumberTable(each.name, tuple(edges), tuple(points), step.missing))
        elif each.kind == "ordered":
            step = columns[0][1]
            points = [step.at(rank) for rank in range(len(each.levels))]
            tables.append(
                LevelTable(each.name, each.levels, tuple(points), step.missing, step.missing)
            )
        else:
            none = math.fsum(step.at(0) for _, step in columns)

            def only(chosen: _Steps, none: float = none) -> float:
                """The sum where this column alone is 1."""
                return none - chosen.at(0) + chosen.at(1)

            levels = [
                (column.level, only(step)) for column, step in columns if column.make == "level"
            ]
            missing = [only(step) for column, step in columns if column.make == "missing"]
            tables.append(
                LevelTable(
                    each.name,
                    tuple(level for level, _ in levels),
                    tuple(point for _, point in levels),
                    none,
                    missing[0] if missing else none,
                )
            )
    return tables


def compile_forest(forest: RandomForestClassifier, columns: int) -> bytes:
    """The forest as an ONNX graph from float32 (n, columns) to `probabilities` (n, 2)."""
    for tree in forest.estimators_:
        thresholds = tree.tree_.threshold
        thresholds[:] = floor_single(thresholds)
    graph = skl2onnx.convert_sklearn(
        forest,
        # Else a random one, and the same training gives other bytes each time.
        name="forest",
        initial_types=[("loans", FloatTensorType([None, columns]))],
        options={id(forest): {"zipmap": False}},
    )
    return graph.SerializeToString()  # type: ignore[no-any-return]
