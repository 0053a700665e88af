"""Tensors between a request's bytes and columns of values."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peerloan.web.api.tensors import (
    Column,
    InferRequest,
    Output,
    TensorError,
    columns,
    encode,
    parse,
)

DTYPES: dict[str, Any] = {
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def one(values: list[Any], datatype: str, **more: Any) -> dict[str, Any]:
    """A tensor of these values."""
    return {"name": "a", "shape": [len(values), 1], "datatype": datatype, **more}


def request(*tensors: dict[str, Any], **more: Any) -> InferRequest:
    """A request's JSON, read."""
    return parse(json.dumps({"inputs": tensors, **more}).encode())


def read(tensor: dict[str, Any], binary: bytes = b"") -> Column:
    """The column that a tensor makes."""
    return columns(request(tensor), binary)["a"]


def serialized(texts: list[str]) -> bytes:
    """Texts in binary form."""
    encoded = [text.encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def test_numbers_and_their_shape_may_be_flat_or_nested() -> None:
    values = [1.5, None, 3]
    assert read(one(values, "FP64", data=values)) == ("FP64", values)
    assert read(one(values, "FP32", data=[[v] for v in values])) == ("FP32", values)
    assert read(one(values, "FP64", data=values) | {"shape": [3]}) == ("FP64", values)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_what_is_no_number_is_missing(values: list[float]) -> None:
    expected = [None if math.isnan(value) else value for value in values]
    raw = np.array(values, np.float64).tobytes()
    size = {"binary_data_size": len(raw)}
    assert read(one(values, "FP64", data=values)).values == expected
    assert read(one(values, "FP64", parameters=size), raw).values == expected


@given(st.sampled_from([*DTYPES]), st.data())
def test_integers_of_every_size(datatype: str, data: st.DataObject) -> None:
    kind = np.iinfo(DTYPES[datatype])
    values = data.draw(st.lists(st.integers(int(kind.min), int(kind.max))))
    raw = np.array(values, DTYPES[datatype]).tobytes()
    size = {"binary_data_size": len(raw)}
    assert read(one(values, datatype, parameters=size), raw) == (datatype, values)
    assert read(one(values, datatype, data=values)) == (datatype, values)


@given(st.lists(TEXT | st.just("")))
def test_texts_and_the_empty_one_is_missing(texts: list[str]) -> None:
    expected = [text or None for text in texts]
    raw = serialized(texts)
    size = {"binary_data_size": len(raw)}
    assert read(one(texts, "BYTES", data=texts)) == ("BYTES", expected)
    assert read(one(texts, "BYTES", parameters=size), raw) == ("BYTES", expected)
    coded = [base64.b64encode(text.encode()).decode() for text in texts]
    kind = {"content_type": "base64"}
    assert read(one(texts, "BYTES", data=coded, parameters=kind)) == ("BYTES", expected)


@given(st.lists(TEXT | st.none() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)))
def test_mixed_values_have_no_datatype(values: list[Any]) -> None:
    coded = [json.dumps(v) for v in values if v not in (math.inf, -math.inf)]
    found = read(one(coded, "BYTES", data=coded, parameters={"content_type": "pd_json"}))
    assert found == (None, [json.loads(text) for text in coded])


def test_null_is_what_is_absent() -> None:
    tensor = one([1], "INT64", data=[1], parameters=None)
    found = request(tensor, id=None, parameters=None, outputs=None)
    assert found == request(one([1], "INT64", data=[1]))


@pytest.mark.parametrize(
    ("tensor", "binary", "said"),
    [
        (one([1, 2], "INT64", data=[1]), b"", "a: expected 2 values by its shape, given 1"),
        (one([1], "INT64", data=[1.5]), b"", "expected values of INT64, given 1.5 for loan 0"),
        (one([1], "FP64", data=["1"]), b"", "given '1' for loan 0"),
        (one([1], "FP64", data=[True]), b"", "given true for loan 0"),
        (one(["x"], "BYTES", data=[1]), b"", "expected values of BYTES, given 1 for loan 0"),
        (one([1], "INT64", data=[[1, 2]]), b"", "expected one value for each loan"),
        (one([1, 2], "INT64", data=[[1], 2]), b"", "expected one value for each loan"),
        (one([], "INT64", data=[1]) | {"shape": [1, 2]}, b"", "the shape [n] or [n, 1]"),
        (one([], "INT64", data=[1]) | {"shape": [1, 1, 1]}, b"", "the shape [n] or [n, 1]"),
        (one([1], "INT64"), b"", "expected data or binary_data_size, given neither"),
        (
            one([1], "INT64", data=[1], parameters={"binary_data_size": 8}),
            bytes(8),
            "expected data or binary_data_size, given both",
        ),
        (one([1], "INT64", parameters={"binary_data_size": 8}), b"1234567", "given 7"),
        (one([1], "INT64", parameters={"binary_data_size": 8}), bytes(9), "expected 8 bytes"),
        (one([1], "INT64", parameters={"binary_data_size": 7}), bytes(7), "8 bytes for each value"),
        (one([1], "INT64", parameters={"binary_data_size": 16}), bytes(16), "given 2"),
        (one(["x"], "BYTES", parameters={"binary_data_size": 3}), bytes(3), "cut off"),
        (one(["x"], "BYTES", parameters={"binary_data_size": 5}), b"\2\0\0\0x", "cut off"),
        (one(["x"], "BYTES", parameters={"binary_data_size": 5}), b"\1\0\0\0\xff", "UTF-8"),
        (
            one(["x"], "BYTES", data=["x"], parameters={"content_type": "base64"}),
            b"",
            "expected texts in its content type, base64",
        ),
        (
            one(["x"], "BYTES", data=["x"], parameters={"content_type": "pd_json"}),
            b"",
            "expected texts in its content type, pd_json",
        ),
    ],
)
def test_a_wrong_tensor_is_named(tensor: dict[str, Any], binary: bytes, said: str) -> None:
    with pytest.raises(TensorError) as error:
        read(tensor, binary)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read as JSON"),
        (b"\xff", "can't be read as JSON"),
        (b"[" * 100_000, "can't be read as JSON|nested too deep"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "required field `inputs`"),
        (b'{"inputs": []}', "length >= 1"),
        (b'{"inputs": [], "inputs": []}', "each name once, given 'inputs' twice"),
        (b'{"inputs": [{"name": "a", "shape": [], "datatype": "INT8"}]}', "length >= 1"),
        (b'{"inputs": [{"name": "a", "shape": [-1], "datatype": "INT8"}]}', ">= 0"),
        (b'{"inputs": [{"name": "a", "shape": [1], "datatype": "BF16"}]}', "'BF16'"),
        (b'{"inputs": [{"name": 1, "shape": [1], "datatype": "INT8"}]}', "inputs[0].name"),
        (b'{"id": 1, "inputs": [{"name": "a", "shape": [1], "datatype": "INT8"}]}', "$.id"),
        (
            b'{"id": "\\ud800", "inputs": [{"name": "a", "shape": [1], "datatype": "INT8"}]}',
            "id: expected valid Unicode",
        ),
    ],
)
def test_what_is_no_request_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(TensorError) as error:
        parse(content)
    assert any(each in str(error.value) for each in said.split("|"))
    str(error.value).encode()


def test_an_input_stands_once() -> None:
    tensor = one([1], "INT64", data=[1])
    with pytest.raises(TensorError, match="each input once, given 'a' twice"):
        columns(request(tensor, tensor), b"")


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": TEXT,
        "shape": st.lists(st.integers(0, 3), max_size=3) | GARBAGE,
        "datatype": st.sampled_from([*DTYPES, "BOOL", "FP16", "FP32", "FP64", "BYTES"]) | GARBAGE,
    },
    optional={
        "data": st.lists(GARBAGE, max_size=3),
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "binary_data_size": st.integers(-1, 30) | GARBAGE,
                "content_type": st.sampled_from(["str", "base64", "pd_json", "pd"]) | GARBAGE,
            },
        ),
    },
)


@given(st.lists(TENSOR, max_size=3), st.binary(max_size=60))
@example([one(["x"], "BYTES", data=["\ud800"], parameters={"content_type": "base64"})], b"")
@example([one(["x"], "BYTES", data=["\ud800"], parameters={"content_type": "pd_json"})], b"")
@example([one([1], "\ud800", data=[1])], b"")
@example([one([1], "x" * 5000, data=[1])], b"")
@example([one(["x"], "BYTES", data=["[" * 99_999], parameters={"content_type": "pd_json"})], b"")
@example([one([1], "INT8", data=[1], name="\ud800"), one([1], "INT8", name="\ud800")], b"")
def test_whatever_comes_is_read_or_refused_in_words(
    tensors: list[dict[str, Any]], binary: bytes
) -> None:
    said = "read"
    try:
        columns(request(*tensors), binary)
    except TensorError as error:
        said = str(error)
    assert 0 < len(said.encode()) < 1000


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        parse(content)
    except TensorError as error:
        str(error).encode()


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), TEXT)), st.sets(st.sampled_from("abc")))
def test_outputs_come_back(rows: list[tuple[float, bool, str]], binary: set[str]) -> None:
    given = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    outputs = {
        name: Output(datatype, values)
        for name, datatype, values in zip("abc", ["FP64", "BOOL", "BYTES"], given, strict=True)
    }
    content, length = encode({"model_name": "m"}, outputs, binary)
    assert (length is not None) == bool(binary)
    head = json.loads(content[:length])
    assert head["model_name"] == "m"
    assert [output["name"] for output in head["outputs"]] == ["a", "b", "c"]
    # What is written is read by the reader of requests.
    found = columns(
        parse(json.dumps({"inputs": head["outputs"]}).encode()), content[length or len(content) :]
    )
    assert [found[name].values for name in "abc"] == given
