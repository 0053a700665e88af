"""Tensors of the Open Inference Protocol: decode requests to columns, encode columns.

Columns are lists of JSON-like values, None for a missing one, which is the input of the checks of
loans.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from peerloan.errors import PeerLoanError
from peerloan.formatting import plural, show_value
from peerloan.loan import Field
from peerloan.loan.text import parse_whole
from peerloan.web.http.json_errors import describe_fault

# In binary form all are little-endian; each BYTES element has its length in four bytes before it.
_NUMBERS = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = (*_NUMBERS, "BYTES")
# The names of the outputs, which no field can have, and their datatypes.
OUTPUTS = {
    "probability": "FP64",
    "late": "BOOL",
    "band": "BYTES",
    "reasons": "BYTES",
    "id": "BYTES",
}
HEADER_LENGTH = "Inference-Header-Content-Length"
_SIZE = struct.Struct("<I")
# Content types of text tensors in MLServer's clients: each element is base64, or JSON (used for a
# data frame's column of mixed values).
_BASE64, _JSON = "base64", "pd_json"


class TensorError(PeerLoanError, ValueError):
    """A request that violates the protocol; the message has what was expected and given."""


class TensorParameters(msgspec.Struct, frozen=True):
    """A tensor's parameters; unknown keys are ignored."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    content_type: str = ""


class Tensor(msgspec.Struct, frozen=True):
    """An input; its data are in the JSON, or in binary form after it."""

    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]
    datatype: Literal[DATATYPES]  # type: ignore[valid-type]
    parameters: TensorParameters = TensorParameters()
    data: list[Any] | None = None


class OutputParameters(msgspec.Struct, frozen=True):
    """An output's parameters; unknown keys are ignored."""

    binary_data: bool | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that the caller requests."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(msgspec.Struct, frozen=True):
    """A request's parameters; unknown keys are ignored."""

    binary_data_output: bool = False
    content_type: str = ""


class InferRequest(msgspec.Struct, frozen=True):
    """The JSON part of a request."""

    inputs: Annotated[list[Tensor], Meta(min_length=1)]
    id: str | None = None
    outputs: list[RequestedOutput] = []
    parameters: RequestParameters = RequestParameters()


class Column(NamedTuple):
    """An input's values; the datatype is None if each value has its own."""

    datatype: str | None
    values: list[Any]


class Output(NamedTuple):
    """An output's values, one for each loan."""

    datatype: str
    values: Sequence[Any]


def parse(content: bytes) -> InferRequest:
    """Parse a request's JSON. Raises TensorError."""
    try:
        # Clients write a missing number as NaN, which only this decoder accepts.
        read = json.loads(
            content.decode("utf-8-sig"), parse_int=parse_whole, object_pairs_hook=_once
        )
    except RecursionError:
        raise TensorError("the request's JSON is nested too deep") from None
    except TensorError:
        raise
    except ValueError:
        fault = describe_fault(content)
        raise TensorError(f"the request can't be read as JSON: {fault}") from None
    try:
        request = msgspec.convert(read, InferRequest)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        # The message may contain input of any length and with any characters.
        reason = str(error)[:300].encode("utf-8", "backslashreplace").decode()
        raise TensorError(f"the request is not the protocol's: {reason}") from None
    if request.id is not None and not _is_unicode(request.id):
        raise TensorError(f"id: expected valid Unicode, given {show_value(request.id)}")
    return request


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object whose names are unique, because decoders differ on repeated names.

    Clients write null for an absent member, so these are dropped.
    """
    read: dict[str, Any] = {}
    for name, value in pairs:
        if name in read:
            raise TensorError(f"expected each name once, given {show_value(name)} twice")
        read[name] = value
    return {name: value for name, value in read.items() if value is not None}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # an unpaired surrogate
        return False
    return True


def columns(request: InferRequest, binary: bytes) -> dict[str, Column]:
    """Decode the inputs by name, from the request and the bytes after its JSON.

    Raises TensorError.
    """
    found: dict[str, Column] = {}
    at = 0
    for tensor in request.inputs:
        if tensor.name in found:
            raise TensorError(f"expected each input once, given {show_value(tensor.name)} twice")
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            given = "neither" if size is None else "both"
            raise _wrong(tensor, "data or binary_data_size", given)
        if size is None:
            found[tensor.name] = _column(tensor, _inline(tensor, tensor.data or []))
            continue
        if size > len(binary) - at:
            raise _wrong(tensor, plural(size, "byte"), f"{len(binary) - at:,}")
        found[tensor.name] = _column(tensor, _raw(tensor, binary[at : at + size]))
        at += size
    if at < len(binary):
        raise TensorError(f"expected {plural(at, 'byte')} behind the JSON, given {len(binary):,}")
    return found


def _wrong(tensor: Tensor, expected: str, given: str) -> TensorError:
    name = tensor.name if tensor.name.isprintable() and len(tensor.name) <= 200 else None
    return TensorError(f"{name or show_value(tensor.name)}: expected {expected}, given {given}")


def _inline(tensor: Tensor, data: list[Any]) -> list[Any]:
    """Decode a tensor in the JSON, flat or nested like its shape."""
    if any(type(row) is list for row in data):
        if not all(type(row) is list and len(row) == 1 for row in data):
            raise _wrong(tensor, "one value a loan", "lists of other lengths")
        data = [row[0] for row in data]
    allowed: set[type] = {type(None)}
    if tensor.datatype.startswith("FP"):
        allowed |= {int, float}
    elif tensor.datatype in ("BYTES", "BOOL"):
        allowed |= {str if tensor.datatype == "BYTES" else bool}
    else:
        allowed |= {int}
    if not allowed.issuperset(map(type, data)):
        i, value = next((i, each) for i, each in enumerate(data) if type(each) not in allowed)
        raise _wrong(tensor, f"values of {tensor.datatype}", f"{show_value(value)} for loan {i}")
    if tensor.datatype[:3] in ("INT", "UIN"):
        _refuse_out_of_range(tensor, data)
    if float in allowed:
        return [None if value != value else value for value in data]
    return data


def _refuse_out_of_range(tensor: Tensor, data: list[Any]) -> None:
    """Raise TensorError if an integer is outside its datatype's range."""
    known = np.iinfo(_NUMBERS[tensor.datatype])
    for i, value in enumerate(data):
        if value is not None and not known.min <= value <= known.max:
            raise _wrong(
                tensor, f"values of {tensor.datatype}", f"{show_value(value)} for loan {i}"
            )


def _raw(tensor: Tensor, content: bytes) -> list[Any]:
    """Decode a tensor in binary form."""
    if tensor.datatype == "BYTES":
        return _texts(tensor, content)
    kind = np.dtype(_NUMBERS[tensor.datatype])
    if len(content) % kind.itemsize:
        raise _wrong(
            tensor, f"{plural(kind.itemsize, 'byte')} a value", plural(len(content), "byte")
        )
    numbers = np.frombuffer(content, kind)
    values: list[Any] = numbers.tolist()
    if kind.kind == "f" and np.isnan(numbers).any():
        return [None if value != value else value for value in values]
    return values


def _texts(tensor: Tensor, content: bytes) -> list[str]:
    texts = []
    at, end = 0, len(content)
    while at < end:
        size = _SIZE.unpack_from(content, at)[0] if end - at >= _SIZE.size else end
        at += _SIZE.size
        if size > end - at:
            raise _wrong(tensor, "each text with its length before it", "a text that is cut off")
        try:
            texts.append(content[at : at + size].decode())
        except UnicodeDecodeError:
            raise _wrong(tensor, "text in UTF-8", repr(content[at : at + size][:20])) from None
        at += size
    return texts


def _column(tensor: Tensor, values: list[Any]) -> Column:
    """Convert a tensor's values to a column, one value for each loan."""
    if tensor.shape[1:] not in ([], [1]):
        raise _wrong(tensor, "the shape [n] or [n, 1]", show_value(tensor.shape))
    if len(values) != tensor.shape[0]:
        shown = show_value(tensor.shape[0])
        raise _wrong(
            tensor,
            f"{shown} {'value' if shown == '1' else 'values'} by its shape",
            f"{len(values):,}",
        )
    if tensor.datatype != "BYTES":
        return Column(tensor.datatype, values)
    kind = tensor.parameters.content_type
    try:
        if kind == _BASE64:
            values = [v and base64.b64decode(v, validate=True).decode() for v in values]
        elif kind == _JSON:
            values = [v and msgspec.json.decode(v) for v in values]
    except (ValueError, RecursionError):
        raise _wrong(tensor, f"texts in {kind}, its content type", "others") from None
    # In binary form only an empty text can represent a missing value.
    values = [None if value == "" else value for value in values]
    return Column(None if kind == _JSON else "BYTES", values)


def input_datatype(field: Field) -> str:
    """Return a field's datatype. A nullable whole number needs a datatype with NaN."""
    if not field.is_number:
        return "BYTES"
    return "INT64" if field.kind == "whole" and not field.missing else "FP64"


def content_type(datatype: str) -> str:
    """Return the name of the codec with which MLServer's clients decode a tensor."""
    return "str" if datatype == "BYTES" else "np"


def encode(
    head: Mapping[str, Any], outputs: Mapping[str, Output], binary: Collection[str]
) -> tuple[bytes, int | None]:
    """Encode a response; returns its bytes, and its JSON's length if binary outputs follow it.

    Each output has the shape [n, 1].
    """
    described = []
    behind = []
    for name, (datatype, values) in outputs.items():
        parameters: dict[str, Any] = {"content_type": content_type(datatype)}
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values), 1]}
        tensor["parameters"] = parameters
        if name in binary:
            behind.append(_binary(datatype, values))
            parameters["binary_data_size"] = len(behind[-1])
        else:
            tensor["data"] = values
        described.append(tensor)
    content = msgspec.json.encode({**head, "outputs": described})
    return b"".join([content, *behind]), len(content) if behind else None


def _binary(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, _NUMBERS[datatype]).tobytes()
    parts = []
    for text in values:
        content = text.encode()
        parts += [_SIZE.pack(len(content)), content]
    return b"".join(parts)
