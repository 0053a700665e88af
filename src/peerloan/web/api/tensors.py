"""Tensors of the Open Inference Protocol: from a request's bytes to columns, from columns to bytes.

Columns are lists of JSON-like values, None for a missing one, as the checks of loans take them.
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

# In binary form all are little-endian; BYTES has a length of four bytes before each element.
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
# The answer's own names, which no field can have, and their datatypes.
OUTPUTS = {
    "probability": "FP64",
    "late": "BOOL",
    "band": "BYTES",
    "reasons": "BYTES",
    "id": "BYTES",
}
HEADER_LENGTH = "Inference-Header-Content-Length"
_SIZE = struct.Struct("<I")
# What MLServer's clients say of tensors of text: each element is in base64, or is JSON (so they
# send a data frame's column of mixed values).
_BASE64, _JSON = "base64", "pd_json"


class TensorError(PeerLoanError, ValueError):
    """A request that is not the protocol's; says what was expected and what was given."""


class TensorParameters(msgspec.Struct, frozen=True):
    """What is said of a tensor; other keys mean nothing here."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    content_type: str = ""


class Tensor(msgspec.Struct, frozen=True):
    """An input; its data stand here, or in binary form behind the request's JSON."""

    name: str
    shape: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]
    datatype: Literal[DATATYPES]  # type: ignore[valid-type]
    parameters: TensorParameters = TensorParameters()
    data: list[Any] | None = None


class OutputParameters(msgspec.Struct, frozen=True):
    """What is said of an output; other keys mean nothing here."""

    binary_data: bool | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that the caller asks for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(msgspec.Struct, frozen=True):
    """What is said of a whole request; other keys mean nothing here."""

    binary_data_output: bool = False
    content_type: str = ""


class InferRequest(msgspec.Struct, frozen=True):
    """A request's JSON."""

    inputs: Annotated[list[Tensor], Meta(min_length=1)]
    id: str | None = None
    outputs: list[RequestedOutput] = []
    parameters: RequestParameters = RequestParameters()


class Column(NamedTuple):
    """An input's values; no datatype if each value has its own."""

    datatype: str | None
    values: list[Any]


class Output(NamedTuple):
    """An output's values, one a loan."""

    datatype: str
    values: Sequence[Any]


def parse(content: bytes) -> InferRequest:
    """A request's JSON; raises TensorError."""
    try:
        # Clients write a missing number as NaN, which only this reader takes.
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
        # It may hold what was given, of any length and in any characters.
        reason = str(error)[:300].encode("utf-8", "backslashreplace").decode()
        raise TensorError(f"the request is not the protocol's: {reason}") from None
    if request.id is not None and not _is_unicode(request.id):
        raise TensorError(f"id: expected valid Unicode, given {show_value(request.id)}")
    return request


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which each name stands once: of two values a reader could take either.

    Null is what clients write for what is absent.
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
    except UnicodeEncodeError:  # a surrogate that stands alone
        return False
    return True


def columns(request: InferRequest, binary: bytes) -> dict[str, Column]:
    """The inputs by name, from the request and the bytes behind its JSON; raises TensorError."""
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
    """The values of a tensor that stands in the JSON, flat or nested as its shape is."""
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
    """Raise TensorError where an integer is none of its datatype."""
    known = np.iinfo(_NUMBERS[tensor.datatype])
    for i, value in enumerate(data):
        if value is not None and not known.min <= value <= known.max:
            raise _wrong(
                tensor, f"values of {tensor.datatype}", f"{show_value(value)} for loan {i}"
            )


def _raw(tensor: Tensor, content: bytes) -> list[Any]:
    """The values of a tensor in binary form."""
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
    """The values as the checks take them, one a loan."""
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
    # A text of no length is the only one that can stand for a missing value in binary form.
    values = [None if value == "" else value for value in values]
    return Column(None if kind == _JSON else "BYTES", values)


def input_datatype(field: Field) -> str:
    """A field's datatype. A whole number that may be missing needs one that has NaN."""
    if not field.is_number:
        return "BYTES"
    return "INT64" if field.kind == "whole" and not field.missing else "FP64"


def content_type(datatype: str) -> str:
    """By which of their codecs MLServer's clients decode a tensor."""
    return "str" if datatype == "BYTES" else "np"


def encode(
    head: Mapping[str, Any], outputs: Mapping[str, Output], binary: Collection[str]
) -> tuple[bytes, int | None]:
    """A response: its bytes, and the length of its JSON if outputs stand behind it in binary form.

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
