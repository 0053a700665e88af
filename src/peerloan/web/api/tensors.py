"""Tensors of the Open Inference Protocol: decode those of a request, encode those of a response.

Decoded tensors are columns: lists of JSON-like values with None for a missing one, as the loan
definition checks them.
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

# The numpy type of each numeric datatype. In binary form, numbers are little-endian, and each
# element of BYTES follows its length in four bytes.
_NUMPY_TYPES = {
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
DATATYPES = (*_NUMPY_TYPES, "BYTES")
# The outputs and their datatypes. No field can have one of these names.
OUTPUTS = {
    "probability": "FP64",
    "late": "BOOL",
    "band": "BYTES",
    "reasons": "BYTES",
    "id": "BYTES",
}
HEADER_LENGTH = "Inference-Header-Content-Length"
_SIZE = struct.Struct("<I")
# Content types of BYTES tensors that MLServer's clients send: each element is base64, or JSON (for
# a data frame's column of mixed values).
_BASE64, _JSON = "base64", "pd_json"


class TensorError(PeerLoanError, ValueError):
    """A request violates the protocol. The message has what was expected and what was given."""


class TensorParameters(msgspec.Struct, frozen=True):
    """A tensor's parameters; unknown keys are ignored."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    content_type: str = ""


class Tensor(msgspec.Struct, frozen=True):
    """An input tensor. Its values are in `data`, or in binary form after the request's JSON."""

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
    """The JSON part of an inference request."""

    inputs: Annotated[list[Tensor], Meta(min_length=1)]
    id: str | None = None
    outputs: list[RequestedOutput] = []
    parameters: RequestParameters = RequestParameters()


class Column(NamedTuple):
    """The values of an input, one for each loan; `datatype` is None if the values are mixed."""

    datatype: str | None
    values: list[Any]


class Output(NamedTuple):
    """The values of an output, one for each loan."""

    datatype: str
    values: Sequence[Any]


def parse(content: bytes) -> InferRequest:
    """Parse the JSON part of a request. Raises TensorError."""
    try:
        # Clients write a missing number as NaN, which only this decoder accepts.
        body = json.loads(
            content.decode("utf-8-sig"), parse_int=parse_whole, object_pairs_hook=_make_object
        )
    except RecursionError:
        raise TensorError("the request's JSON is nested too deep") from None
    except TensorError:
        raise
    except ValueError:
        fault = describe_fault(content)
        raise TensorError(f"the request can't be read as JSON: {fault}") from None
    try:
        request = msgspec.convert(body, InferRequest)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        # The message quotes input, which may be long and may have any characters.
        reason = str(error)[:300].encode("utf-8", "backslashreplace").decode()
        raise TensorError(
            f"the request is not valid in the Open Inference Protocol: {reason}"
        ) from None
    if request.id is not None and not _is_unicode(request.id):
        raise TensorError(f"id: expected valid Unicode, given {show_value(request.id)}")
    return request


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object from its pairs. Raises TensorError if a name is repeated.

    JSON decoders differ on which value of a repeated name they take. Members that are null are left
    out, because clients write null for an absent member.
    """
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise TensorError(f"expected each name once, given {show_value(name)} twice")
        members[name] = value
    return {name: value for name, value in members.items() if value is not None}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # an unpaired surrogate
        return False
    return True


def columns(request: InferRequest, binary: bytes) -> dict[str, Column]:
    """Decode the inputs to columns, by name. Raises TensorError.

    `binary` are the bytes after the request's JSON.
    """
    decoded: dict[str, Column] = {}
    start = 0
    for tensor in request.inputs:
        if tensor.name in decoded:
            raise TensorError(f"expected each input once, given {show_value(tensor.name)} twice")
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            given = "neither" if size is None else "both"
            raise _wrong(tensor, "data or binary_data_size", given)
        if size is None:
            decoded[tensor.name] = _column(tensor, _decode_data(tensor, tensor.data or []))
            continue
        if size > len(binary) - start:
            raise _wrong(tensor, plural(size, "byte"), f"{len(binary) - start:,}")
        decoded[tensor.name] = _column(tensor, _decode_binary(tensor, binary[start : start + size]))
        start += size
    if start < len(binary):
        raise TensorError(f"expected {plural(start, 'byte')} after the JSON, given {len(binary):,}")
    return decoded


def _wrong(tensor: Tensor, expected: str, given: str) -> TensorError:
    """Return the error of a wrong tensor, with its name."""
    name = tensor.name if tensor.name.isprintable() and len(tensor.name) <= 200 else None
    return TensorError(f"{name or show_value(tensor.name)}: expected {expected}, given {given}")


def _decode_data(tensor: Tensor, data: list[Any]) -> list[Any]:
    """Decode the values of a tensor in the JSON: a flat list, or a list of one-value lists."""
    if any(type(row) is list for row in data):
        if not all(type(row) is list and len(row) == 1 for row in data):
            raise _wrong(tensor, "one value for each loan", "lists of other lengths")
        data = [row[0] for row in data]
    allowed: set[type] = {type(None)}
    if tensor.datatype.startswith("FP"):
        allowed |= {int, float}
    elif tensor.datatype in ("BYTES", "BOOL"):
        allowed |= {str if tensor.datatype == "BYTES" else bool}
    else:
        allowed |= {int}
    if not allowed.issuperset(map(type, data)):
        i, value = next((i, value) for i, value in enumerate(data) if type(value) not in allowed)
        raise _wrong(tensor, f"values of {tensor.datatype}", f"{show_value(value)} for loan {i}")
    if tensor.datatype[:3] in ("INT", "UIN"):
        _refuse_out_of_range(tensor, data)
    if float in allowed:
        return [None if value != value else value for value in data]
    return data


def _refuse_out_of_range(tensor: Tensor, data: list[Any]) -> None:
    """Raise TensorError if an integer is outside its datatype's range."""
    limits = np.iinfo(_NUMPY_TYPES[tensor.datatype])
    for i, value in enumerate(data):
        if value is not None and not limits.min <= value <= limits.max:
            raise _wrong(
                tensor, f"values of {tensor.datatype}", f"{show_value(value)} for loan {i}"
            )


def _decode_binary(tensor: Tensor, content: bytes) -> list[Any]:
    """Decode the values of a tensor in binary form."""
    if tensor.datatype == "BYTES":
        return _decode_texts(tensor, content)
    kind = np.dtype(_NUMPY_TYPES[tensor.datatype])
    if len(content) % kind.itemsize:
        raise _wrong(
            tensor, f"{plural(kind.itemsize, 'byte')} for each value", plural(len(content), "byte")
        )
    numbers = np.frombuffer(content, kind)
    values: list[Any] = numbers.tolist()
    if kind.kind == "f" and np.isnan(numbers).any():
        return [None if value != value else value for value in values]
    return values


def _decode_texts(tensor: Tensor, content: bytes) -> list[str]:
    """Decode the values of a BYTES tensor in binary form."""
    texts = []
    start, end = 0, len(content)
    while start < end:
        size = _SIZE.unpack_from(content, start)[0] if end - start >= _SIZE.size else end
        start += _SIZE.size
        if size > end - start:
            raise _wrong(tensor, "each text with its length before it", "a text that is cut off")
        text = content[start : start + size]
        try:
            texts.append(text.decode())
        except UnicodeDecodeError:
            raise _wrong(tensor, "text in UTF-8", repr(text[:20])) from None
        start += size
    return texts


def _column(tensor: Tensor, values: list[Any]) -> Column:
    """Convert a tensor's values to a column, one value for each loan."""
    if tensor.shape[1:] not in ([], [1]):
        raise _wrong(tensor, "the shape [n] or [n, 1]", show_value(tensor.shape))
    if len(values) != tensor.shape[0]:
        count = show_value(tensor.shape[0])
        raise _wrong(
            tensor,
            f"{count} {'value' if count == '1' else 'values'} by its shape",
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
        raise _wrong(tensor, f"texts in its content type, {kind}", "other texts") from None
    # Binary form has no null, so an empty text is a missing value.
    values = [None if value == "" else value for value in values]
    return Column(None if kind == _JSON else "BYTES", values)


def input_datatype(field: Field) -> str:
    """Return a field's datatype. A whole number that may be missing is FP64, which has NaN."""
    if not field.is_number:
        return "BYTES"
    return "INT64" if field.kind == "whole" and not field.missing else "FP64"


def content_type(datatype: str) -> str:
    """Return the content type by which MLServer's clients decode a tensor."""
    return "str" if datatype == "BYTES" else "np"


def encode(
    head: Mapping[str, Any], outputs: Mapping[str, Output], binary: Collection[str]
) -> tuple[bytes, int | None]:
    """Encode a response. Each output has the shape [n, 1].

    `head` has the first members of the JSON. The outputs that `binary` names are in binary form
    after the JSON. Returns the body, and the length of its JSON if any output is in binary form.
    """
    described = []
    parts = []
    for name, (datatype, values) in outputs.items():
        parameters: dict[str, Any] = {"content_type": content_type(datatype)}
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values), 1]}
        tensor["parameters"] = parameters
        if name in binary:
            parts.append(_encode_binary(datatype, values))
            parameters["binary_data_size"] = len(parts[-1])
        else:
            tensor["data"] = values
        described.append(tensor)
    content = msgspec.json.encode({**head, "outputs": described})
    return b"".join([content, *parts]), len(content) if parts else None


def _encode_binary(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(values, _NUMPY_TYPES[datatype]).tobytes()
    parts = []
    for text in values:
        content = text.encode()
        parts += [_SIZE.pack(len(content)), content]
    return b"".join(parts)
