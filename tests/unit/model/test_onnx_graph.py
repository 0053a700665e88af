"""Allowed contents of an ONNX graph, compared with the onnx library."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from peerloan.model.onnx_graph import OPERATORS, OnnxModelError, check_graph
from peerloan.registry import BundleError, Store

FORMAT = Path(__file__).parents[2] / "formats" / "format-1-onnx" / "small-onnx-1-1"
GOOD = (FORMAT / "model.onnx").read_bytes()
FLOAT = onnx.TensorProto.FLOAT


def model(nodes: list[Any], tensors: list[Any] | None = None) -> onnx.ModelProto:
    """Return a model of these nodes, from `loans` to `probabilities`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("loans", FLOAT, [None, 2])],
        [helper.make_tensor_value_info("probabilities", FLOAT, [None, 1])],
        tensors or [],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(operator: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["loans"], ["probabilities"], domain=domain, **attributes)


def weights(name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones((2, 1), dtype=np.float32), name)


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a tensor whose values are in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def sparse() -> onnx.SparseTensorProto:
    values = helper.make_tensor("s", FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    return helper.make_sparse_tensor(values, indices, [2])


def with_function() -> onnx.ModelProto:
    made = model([node("Sigmoid")])
    imports = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Sigmoid", ["a"], ["b"])]
    made.functions.append(helper.make_function("own", "Sigmoid", ["a"], ["b"], body, imports))
    return made


def with_sparse() -> onnx.ModelProto:
    made = model([node("Sigmoid")])
    made.graph.sparse_initializer.append(sparse())
    return made


def only(location: str) -> onnx.ModelProto:
    """Return a tensor with only one of the two marks of external data."""
    tensor = weights()
    if location == "list":
        tensor.external_data.add(key="location", value="weights.bin")
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
    return model([node("Sigmoid")], [tensor])


INNER = model([node("Sigmoid")]).graph
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "initializer": (lambda: model([node("Sigmoid")], [external(weights())]), "another file"),
    "its list alone": (lambda: only("list"), "another file"),
    "its mark alone": (lambda: only("mark"), "another file"),
    "attribute": (lambda: model([node("Cast", value=external(weights()))]), "another file"),
    "attribute's list": (lambda: model([node("Cast", v=[external(weights())])]), "another file"),
    "constant": (lambda: model([node("Constant", value=weights())]), "given 'Constant'"),
    "random": (lambda: model([node("RandomNormalLike")]), "given 'RandomNormalLike'"),
    "bernoulli": (lambda: model([node("Bernoulli")]), "given 'Bernoulli'"),
    "dropout": (lambda: model([node("Dropout")]), "given 'Dropout'"),
    "loop": (lambda: model([node("Loop", body=INNER)]), "a graph within the graph"),
    "if": (lambda: model([node("If", then_branch=INNER)]), "a graph within the graph"),
    "graphs": (lambda: model([node("Add", bodies=[INNER])]), "graphs within the graph"),
    "domain": (lambda: model([node("Sigmoid", "com.microsoft")]), "'com.microsoft'"),
    "other domain's": (lambda: model([node("Add", "ai.onnx.ml")]), "'ai.onnx.ml'"),
    "function": (with_function, "functions"),
    "sparse weights": (with_sparse, "sparse weights"),
    "sparse attribute": (lambda: model([node("Add", value=sparse())]), "sparse weights"),
}


@pytest.mark.parametrize("make", [pair[0] for pair in REFUSED.values()], ids=REFUSED)
def test_contents_that_training_does_not_write_are_refused(
    make: Callable[[], onnx.ModelProto], request: pytest.FixtureRequest
) -> None:
    expected = REFUSED[request.node.callspec.id][1]
    with pytest.raises(OnnxModelError, match=expected) as refused:
        check_graph(make().SerializeToString())
    assert str(refused.value).startswith("model.onnx: ")


def test_the_operators_of_training_are_accepted() -> None:
    check_graph(GOOD)
    for domain, names in OPERATORS.items():
        for name in names:
            check_graph(model([node(name, domain, to=1, v=[0.5], t=weights())]).SerializeToString())


def allowed(made: onnx.ModelProto) -> bool:
    """Return whether a model parsed by the library has only allowed contents."""
    if made.functions or made.training_info or made.metadata_props:
        return False
    if made.graph.sparse_initializer:
        return False
    tensors = list(made.graph.initializer)
    for each in made.graph.node:
        if each.op_type not in OPERATORS.get(each.domain, ()):
            return False
        for attribute in each.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
                return False
            tensors += [attribute.t, *attribute.tensors] if attribute.HasField("t") else []
    return not any(t.external_data or t.data_location for t in tensors)


PIECES = [make().SerializeToString() for make, _ in REFUSED.values()] + [
    model([node("Sigmoid")], [weights()]).SerializeToString(),
    GOOD,
]


@given(
    st.sampled_from(PIECES),
    st.sampled_from(PIECES),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=3),
    st.integers(0, 2_000),
)
def test_an_accepted_graph_has_only_allowed_contents(
    first: bytes, second: bytes, changed: list[tuple[int, int]], cut: int
) -> None:
    """Includes two concatenated graphs, which a parser merges, and changed bytes."""
    data = bytearray((first + second)[: -cut or None] if cut % 3 == 0 else first + second)
    for place, byte in changed:
        if place < len(data):
            data[place] = byte
    try:
        check_graph(bytes(data))
    except OnnxModelError:
        return
    try:
        made = onnx.load_from_string(bytes(data))
    except Exception:  # no graph for the library either
        return
    assert allowed(made)


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused_with_onnx_model_error(data: bytes) -> None:
    """No other error than OnnxModelError is raised."""
    with contextlib.suppress(OnnxModelError):
        check_graph(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3b\x3c",
        b"\x38\x01",
        b"\x00\x00",
        b"ORTM" * 20,
    ],
    ids=["long", "longer", "group", "wire", "zero", "another format"],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OnnxModelError):
        check_graph(data)


def test_weights_in_another_file_can_not_change_a_version(tmp_path: Path) -> None:
    """The file is in the model's folder and in the working folder; no manifest lists it."""
    store = Store(tmp_path / "store")
    folder = tmp_path / "store" / "versions" / "small-onnx-1-1"
    shutil.copytree(FORMAT, folder)
    (folder / "added-by-a-later-release.json").write_text("{}", encoding="utf-8")
    assert store.load("small-onnx-1-1").version == "small-onnx-1-1"
    made = model(
        [helper.make_node("MatMul", ["loans", "w"], ["probabilities"])], [external(weights())]
    ).SerializeToString()
    for place in (folder, tmp_path):
        (place / "weights.bin").write_bytes(np.ones(2, dtype=np.float32).tobytes())
    (folder / "model.onnx").write_bytes(made)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["model.onnx"] = {"bytes": len(made), "sha256": sha256(made).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with (
        contextlib.chdir(tmp_path),
        pytest.raises(
            BundleError,
            match=r"small-onnx-1-1: model\.onnx: expected only .*; given weights in another file",
        ),
    ):
        store.load("small-onnx-1-1")


def test_the_docs_name_every_operator() -> None:
    text = (Path(__file__).parents[3] / "docs" / "store.md").read_text("utf-8")
    missing = [name for names in OPERATORS.values() for name in names if f"`{name}`" not in text]
    assert not missing
