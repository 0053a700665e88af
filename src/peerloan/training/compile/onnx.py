"""Compile fitted estimators to ONNX graphs: float32 (n, columns) to `probabilities`.

The graphs are written node by node, not by a converter. A hundred full-grown trees take a second,
and a loan's probability has the same bits alone as in a batch. The usual graph of a regression does
not have that property.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import xgboost
from onnx import helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier

from peerloan.model.arithmetic import UNIT
from peerloan.stats.arrays import Numbers
from peerloan.training.compile.trees import Tree, trees_of_booster, trees_of_forest

_INPUT, _OUTPUT = "loans", "probabilities"
# onnxruntime 1.20, the oldest release that serving allows, reads these versions.
_OPSETS = {"": 17, "ai.onnx.ml": 3}
_IR_VERSION = 8


def forest_graph(forest: RandomForestClassifier, columns: int) -> bytes:
    """Compile a forest that decides at every split as scikit-learn does."""
    ensemble = _ensemble(
        trees_of_forest(forest), "BRANCH_LEQ", n_targets=1, aggregate_function="AVERAGE"
    )
    return _graph([ensemble], [], columns, onnx.TensorProto.FLOAT)


def booster_graph(booster: xgboost.Booster, columns: int) -> bytes:
    """Compile boosted trees that decide at every split as XGBoost does."""
    base, trees = trees_of_booster(booster)
    # A softmax of 0 and the margin is the logistic function, and accurate for small probabilities
    # too; the operator's own logistic computes 1 minus a single.
    ensemble = _ensemble(
        trees,
        "BRANCH_LT",
        n_targets=2,
        aggregate_function="SUM",
        base_values=[0.0, base],
        post_transform="SOFTMAX",
    )
    return _graph([ensemble], [], columns, onnx.TensorProto.FLOAT)


def logistic_graph(
    centre: Numbers, scale: Numbers, limit: float, weights: Numbers, intercept: float
) -> bytes:
    """Compile a logistic regression on clipped, scaled columns.

    The log-odds are clip((loan − centre) / scale, ± `limit`) · weights + intercept.

    A product sums in another order for one row than for many. So each column's term is first
    rounded to a multiple of 2⁻³²: sums are then exact in any order.
    """
    # The logistic rounds differently if a row does not fill the processor's vectors, so each row
    # has eight equal columns.
    width = 8
    constants = {
        "centre": centre,
        "scale": scale,
        "lowest": np.array(-limit),
        "highest": np.array(limit),
        "weights": weights / UNIT,
        "units": np.full((len(centre), width), UNIT),
        "intercept": np.rint(np.array([intercept]) / UNIT) * UNIT,
        "first": np.array([0], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", [_INPUT], ["doubles"], to=onnx.TensorProto.DOUBLE),
        helper.make_node("Sub", ["doubles", "centre"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "lowest", "highest"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "weights"], ["exact"]),
        helper.make_node("Round", ["exact"], ["rounded"]),
        helper.make_node("MatMul", ["rounded", "units"], ["sums"]),
        helper.make_node("Add", ["sums", "intercept"], ["margins"]),
        helper.make_node("Sigmoid", ["margins"], ["equal"]),
        helper.make_node("Gather", ["equal", "first"], [_OUTPUT], axis=1),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return _graph(nodes, tensors, len(centre), onnx.TensorProto.DOUBLE)


def _ensemble(trees: Sequence[Tree], mode: str, **attributes: Any) -> onnx.NodeProto:
    """Make one operator of all trees, whose last target gets the values of the leaves."""
    leaf = np.concatenate([tree.leaf for tree in trees])
    owner = np.repeat(np.arange(len(trees)), [len(tree.left) for tree in trees])
    number = np.concatenate([np.arange(len(tree.left)) for tree in trees])

    def inner(name: str) -> list[Any]:
        # A leaf's entry is never read, but must be in range.
        values = np.concatenate([getattr(tree, name) for tree in trees])
        return np.where(leaf, values.dtype.type(0), values).tolist()  # type: ignore[no-any-return]

    node = helper.make_node(
        "TreeEnsembleRegressor", [_INPUT], [_OUTPUT], domain="ai.onnx.ml", **attributes
    )
    long: dict[str, list[Any]] = {
        "nodes_treeids": owner.tolist(),
        "nodes_nodeids": number.tolist(),
        "nodes_featureids": inner("column"),
        "nodes_values": inner("threshold"),
        "nodes_modes": np.where(leaf, b"LEAF", mode.encode()).tolist(),
        "nodes_truenodeids": inner("left"),
        "nodes_falsenodeids": inner("right"),
        "nodes_missing_value_tracks_true": list(map(int, inner("missing_left"))),
        "target_treeids": owner[leaf].tolist(),
        "target_nodeids": number[leaf].tolist(),
        "target_ids": [attributes["n_targets"] - 1] * int(leaf.sum()),
        "target_weights": np.concatenate([tree.value for tree in trees])[leaf].tolist(),
    }
    for name, values in long.items():
        # Write directly to the message: the library's helper inspects every value several times.
        attribute = node.attribute.add(name=name)
        kind = {int: "ints", float: "floats", bytes: "strings"}[type(values[0])]
        attribute.type = onnx.AttributeProto.AttributeType.Value(kind.upper())
        getattr(attribute, kind).extend(values)
    return node


def _graph(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], columns: int, output: int
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "estimator",
        [helper.make_tensor_value_info(_INPUT, onnx.TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info(_OUTPUT, output, [None, None])],
        constants,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="peerloan"
    )
    return model.SerializeToString()  # type: ignore[no-any-return]
