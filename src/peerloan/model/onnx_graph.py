"""Check an ONNX graph before the runtime loads it.

The graph is parsed as a protocol buffer (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
A message field or an operator that is not listed here is refused. So everything that a version
computes is in the file whose digest is in the manifest: no weights in other files, no random
numbers, no loops, no custom code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from peerloan.errors import PeerLoanError
from peerloan.formatting import show_value

# The operators that training uses, by domain.
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        {"Add", "Cast", "Clip", "Div", "Gather", "MatMul", "Mul", "Round", "Sigmoid", "Sub"}
    ),
    "ai.onnx.ml": frozenset({"TreeEnsembleRegressor"}),
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT, _LARGEST = 10, 2**63
# Runs of floats, integers and short texts of an attribute. They are skipped in one step, because a
# forest has millions of them.
_RUNS = re.compile(
    rb"(?>\x3d.{4}|\x40[\x80-\xff]{0,9}[\x00-\x7f]|\x4a(?:%s))++"
    % b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(64)),
    re.DOTALL,
)
# The field numbers that a message may have. A field with a name is parsed, others are skipped.
_MODEL = {1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "graph", 8: ""}
_GRAPH = {1: "node", 2: "", 5: "tensor", 10: "", 11: "", 12: "", 13: ""}
_NODE = {1: "", 2: "", 3: "", 4: "operator", 5: "attribute", 6: "", 7: "domain"}
_ATTRIBUTE = {1: "", 2: "", 3: "", 4: "", 5: "tensor", 7: "", 8: "", 9: "", 10: "tensor"} | {
    13: "",
    20: "",
}
_TENSOR = {1: "", 2: "", 4: "", 5: "", 6: "", 7: "", 8: "", 9: "", 10: "", 11: "", 12: ""}
_REFUSED = {
    ("model", 14): "metadata",
    ("model", 20): "training information",
    ("model", 25): "functions",
    ("graph", 15): "sparse weights",
    ("attribute", 6): "a graph within the graph",
    ("attribute", 11): "graphs within the graph",
    ("attribute", 22): "sparse weights",
    ("attribute", 23): "sparse weights",
    ("tensor", 13): "weights in another file",
    ("tensor", 14): "weights in another file",
}


class OnnxModelError(PeerLoanError, ValueError):
    """An ONNX model can't be used; the message gives the reason."""


def check_graph(graph: bytes) -> None:
    """Raise OnnxModelError unless a graph has only OPERATORS, and weights in the same file."""
    data = memoryview(graph)
    for _, model_part in _parts("model", data, _MODEL):
        for kind, part in _parts("graph", model_part, _GRAPH):
            if kind == "node":
                _check_node(part)
            else:
                _check_tensor(part)


def _check_node(node: memoryview) -> None:
    named: dict[str, str] = {}
    for kind, part in _parts("node", node, _NODE):
        if kind == "attribute":
            for _, tensor in _parts("attribute", part, _ATTRIBUTE):
                _check_tensor(tensor)
        elif kind in named:
            raise OnnxModelError(f"model.onnx: a node has more than one {kind}")
        else:
            named[kind] = bytes(part).decode("utf-8", "replace")
    operator, domain = named.get("operator", ""), named.get("domain", "")
    if operator not in OPERATORS.get(domain, ()):
        of = f" of the domain {show_value(domain)}" if domain else ""
        allowed = ", ".join(sorted(name for names in OPERATORS.values() for name in names))
        raise OnnxModelError(
            f"model.onnx: expected operators that training makes ({allowed}), given "
            f"{show_value(operator)}{of}"
        )


def _check_tensor(tensor: memoryview) -> None:
    for _ in _parts("tensor", tensor, _TENSOR):
        pass


def _parts(
    message: str, data: memoryview, fields: Mapping[int, str]
) -> Iterator[tuple[str, memoryview]]:
    """Yield (name, content) of the message's fields that have a name in `fields`, in order.

    Raises OnnxModelError for a field that is not allowed, and if the data is no such message.
    """
    at = 0
    while at < len(data):
        if message == "attribute" and (run := _RUNS.match(data, at)):
            at = run.end()
            continue
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number not in fields:
            what = _REFUSED.get((message, number), f"field {number} of a {message}")
            raise OnnxModelError(
                f"model.onnx: expected only operators and weights, all in this file; given {what}"
            )
        start, at = _LENGTHS[wire](data, at) if wire in _LENGTHS else (at, -1)
        if not start <= at <= len(data) or (fields[number] and wire != _BYTES):
            raise OnnxModelError(
                "model.onnx: expected an ONNX graph; given other data, or a truncated file"
            )
        if fields[number]:
            yield fields[number], data[start:at]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Parse a varint. Returns the number and its end."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise OnnxModelError(
        "model.onnx: expected an ONNX graph; given other data, or a truncated file"
    )


def _sized(data: memoryview, at: int) -> tuple[int, int]:
    """Return start and end of a length-prefixed value."""
    length, start = _varint(data, at)
    return start, start + min(length, _LARGEST)


# Functions that return start and end of a field's value, by wire type. ONNX has no groups.
_LENGTHS: Mapping[int, Callable[[memoryview, int], tuple[int, int]]] = {
    _VARINT: lambda data, at: (at, _varint(data, at)[1]),
    _FIXED64: lambda _, at: (at, at + 8),
    _BYTES: _sized,
    _FIXED32: lambda _, at: (at, at + 4),
}
