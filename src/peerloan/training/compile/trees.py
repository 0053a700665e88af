"""Trees of fitted forests and boosters as arrays of nodes, from which estimators are compiled."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xgboost
from sklearn.ensemble import RandomForestClassifier

from peerloan.stats.arrays import Numbers


@dataclass(frozen=True)
class Tree:
    """One tree: arrays over its nodes. The root is node 0; a node without a left child is a leaf.

    At an inner node a loan goes left if its value of `column` is below `threshold` (in a booster),
    or not above it (in a forest). `value` is the value of a leaf.
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float32]
    missing_left: npt.NDArray[np.bool_]
    value: Numbers

    @property
    def leaf(self) -> npt.NDArray[np.bool_]:
        """Which nodes are leaves (nodes,)."""
        return self.left < 0


def floor_single(thresholds: Numbers) -> npt.NDArray[np.float32]:
    """Return the largest singles that are not above these doubles.

    For a single x and a double t, x ≤ t if and only if x ≤ floor_single(t). So thresholds can be
    stored in single precision, and all splits stay the same.
    """
    with np.errstate(over="ignore"):
        singles = thresholds.astype(np.float32)
        below = np.nextafter(singles, np.float32(-np.inf))
    return np.where(singles > thresholds, below, singles)


def trees_of_forest(forest: RandomForestClassifier) -> list[Tree]:
    """Return a forest's trees; the value of a leaf is its share of late loans."""
    fitted = [estimator.tree_ for estimator in forest.estimators_]
    return [
        Tree(
            tree.children_left,
            tree.children_right,
            tree.feature,
            floor_single(tree.threshold),
            np.zeros(tree.node_count, dtype=np.bool_),
            tree.value[:, 0, 1],
        )
        for tree in fitted
    ]


def trees_of_booster(booster: xgboost.Booster) -> tuple[float, list[Tree]]:
    """Return the margin before the first tree, and the trees; values of leaves are log-odds."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    start = float(np.float32(learner["learner_model_param"]["base_score"].strip("[]")))
    trees = []
    for tree in learner["gradient_booster"]["model"]["trees"]:
        # The library stores a leaf's value where an inner node has its threshold.
        conditions = np.array(tree["split_conditions"], dtype=np.float32)
        trees.append(
            Tree(
                np.array(tree["left_children"], dtype=np.int64),
                np.array(tree["right_children"], dtype=np.int64),
                np.array(tree["split_indices"], dtype=np.int64),
                conditions,
                np.array(tree["default_left"], dtype=np.bool_),
                conditions.astype(np.float64),
            )
        )
    return math.log(start / (1 - start)), trees
