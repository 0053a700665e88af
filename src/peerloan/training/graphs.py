"""Converting fitted estimators to ONNX graphs: float32 (n, columns) to `probabilities` (n, 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxmltools
import skl2onnx
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as BoosterTensorType
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier

from peerloan.loan import Numbers
from peerloan.model.onnx_model import FLOOR

_INPUT, _NAME = "loans", "estimator"


def log_odds(probability: Numbers) -> Numbers:
    """The log-odds of probabilities, of which 0 and 1 are taken as the nearest that have any."""
    inside = np.clip(probability, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(inside / (1 - inside)))


def floor_single(thresholds: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    """The largest singles that are not above these doubles.

    For a single x and a double t, x ≤ t holds exactly when x ≤ floor_single(t): so thresholds can
    be stored in single precision without moving one split.
    """
    with np.errstate(over="ignore"):
        singles = thresholds.astype(np.float32)
        below = np.nextafter(singles, np.float32(-np.inf))
    return np.where(singles > thresholds, below, singles)


def forest_graph(forest: RandomForestClassifier, columns: int) -> bytes:
    """A forest that decides at every split as scikit-learn does."""
    for tree in forest.estimators_:
        thresholds = tree.tree_.threshold
        thresholds[:] = floor_single(thresholds)
    return pipeline_graph(forest, columns)


def pipeline_graph(estimator: Any, columns: int) -> bytes:
    """A scikit-learn classifier, or a pipeline that ends in one."""
    final = estimator[-1] if hasattr(estimator, "steps") else estimator
    graph = skl2onnx.convert_sklearn(
        estimator,
        # Else a random one, and the same training gives other bytes each time.
        name=_NAME,
        initial_types=[(_INPUT, FloatTensorType([None, columns]))],
        options={id(final): {"zipmap": False}},
    )
    return graph.SerializeToString()  # type: ignore[no-any-return]


def booster_graph(booster: xgboost.Booster, columns: int) -> bytes:
    """Boosted trees."""
    graph = onnxmltools.convert_xgboost(
        booster, name=_NAME, initial_types=[(_INPUT, BoosterTensorType([None, columns]))]
    )
    return graph.SerializeToString()  # type: ignore[no-any-return]
