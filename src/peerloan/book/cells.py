"""Convert a column of any Arrow type to numbers or coded texts.

The result is the same as if each value was parsed by the rules of `peerloan.loan`. Where Arrow's
rules are the same, Arrow converts the column at once; other values are parsed in Python, each
distinct value once.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peerloan.book.formats.encodings import show_bytes
from peerloan.formatting import show_value
from peerloan.loan import Field, TextColumn
from peerloan.loan.spelling import RESPELLED, Spelling, plain, text_of
from peerloan.loan.text import MAX_TEXT, parse_number, text_fault
from peerloan.stats.arrays import Codes, Numbers

Mask = npt.NDArray[np.bool_]

# Texts that Arrow and `parse_number` parse to the same double, bit for bit.
_PLAIN_NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$"


def read_numbers(column: pa.Array) -> tuple[Numbers, Mask]:
    """Parse a column as float64 (n,), NaN where missing or wrong; and a mask of wrong values.

    Text is parsed by `parse_number`. NaN is missing. Infinity, booleans and dates are wrong. A
    number with more digits than a double holds is rounded to the nearest double, in every format.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_binary(kind):
        return _parse_numbers(column)
    if pa.types.is_decimal(kind):
        return _parse_numbers(_to_bytes(column.cast(pa.string())))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = _to_float64(column.cast(pa.float64(), safe=False))
        wrong = np.isinf(numbers)
        return np.where(wrong, np.nan, numbers), wrong
    return np.full(len(column), np.nan), _is_present(column)


def read_texts(column: pa.Array, field: Field | None = None) -> tuple[TextColumn, Mask]:
    """Parse a column as coded texts, code −1 where missing or wrong; and a mask of wrong values.

    An ordered field accepts its levels only; any other field, and no field, accepts each text
    that `text_fault` accepts. Texts get the spelling of the field, without a field the plain one.
    Only an empty text is missing.
    """
    codes, distinct_values = _encoded(column)
    spelling = Spelling() if field is None else Spelling.of(field)
    levels = None if field is None or field.kind != "ordered" else frozenset(field.levels)
    if levels is None and spelling.is_plain:
        texts = _plain_texts(distinct_values)
        if texts is not None:
            return TextColumn(codes, texts), np.zeros(len(codes), dtype=np.bool_)
    distinct_texts = _texts(distinct_values)
    places: dict[str, int] = {}
    # Indexed by the value's code; the last entry is for missing values, which have code −1.
    table = np.full(len(distinct_texts) + 1, -1, dtype=np.int64)
    wrong = np.zeros(len(distinct_texts) + 1, dtype=np.bool_)
    for code, value in enumerate(distinct_texts):
        if value == "":
            continue
        text = None if value is None else spelling(value)
        if text is None or (text_fault(text) if levels is None else text not in levels):
            wrong[code] = True
        else:
            table[code] = places.setdefault(text, len(places))
    return TextColumn(table[codes], tuple(places)), wrong[codes]


def _plain_texts(distinct_values: pa.Array | _Unreadable) -> tuple[str, ...] | None:
    """Convert distinct values to texts at once.

    Returns None unless all are integers, or valid ASCII texts in their plain spelling.
    """
    if isinstance(distinct_values, _Unreadable):
        return None
    if pa.types.is_integer(distinct_values.type):
        return tuple(distinct_values.cast(pa.string()).to_pylist())
    if not pa.types.is_binary(distinct_values.type):
        return None
    lengths = pc.min_max(pc.binary_length(distinct_values)).as_py()
    if not lengths["min"] or lengths["max"] > MAX_TEXT:
        return None
    if pc.any(pc.match_substring_regex(distinct_values, f"[^ -~]|{RESPELLED}")).as_py():
        return None
    try:
        return tuple(distinct_values.cast(pa.string()).to_pylist())
    except pa.ArrowInvalid:  # not UTF-8
        return None


def encode(column: pa.Array) -> tuple[Codes, list[Any]]:
    """Dictionary-encode a column: codes (n,), −1 for null, and the distinct values."""
    codes, distinct_values = _encoded(column)
    return codes, distinct_values.to_pylist()


def encode_texts(column: pa.Array) -> tuple[Codes, list[str | None]]:
    """Dictionary-encode a column as texts: codes (n,), −1 for null, and the distinct values.

    Texts are in their plain spelling: empty if the value is missing, None if it can't be text. Two
    codes may have the same text.
    """
    codes, distinct_values = _encoded(column)
    return codes, [text and plain(text) for text in _texts(distinct_values)]


def _encoded(column: pa.Array) -> tuple[Codes, pa.Array | _Unreadable]:
    column = decoded(column)
    try:
        if not _is_scalar(column.type):
            raise pa.ArrowNotImplementedError
        if pa.types.is_temporal(column.type):
            column = _to_bytes(column.cast(pa.string()))
        encoded = column.dictionary_encode()
    except pa.ArrowException:  # also a time in an unknown zone
        codes = np.where(_is_present(column), np.int64(0), np.int64(-1))
        return codes, _Unreadable(str(column.type))
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary


def _is_scalar(kind: pa.DataType) -> bool:
    """Whether values of a decoded column can be texts or numbers.

    Durations can't: as text they are a count without its unit.
    """
    types = pa.types
    if types.is_duration(kind) or types.is_interval(kind):
        return False
    return bool(
        types.is_primitive(kind)
        or types.is_binary(kind)
        or types.is_decimal(kind)
        or types.is_null(kind)
    )


def _texts(distinct_values: pa.Array | _Unreadable) -> list[str | None]:
    """Distinct values as texts: empty if missing, None if the value can't be text."""
    values = distinct_values.to_pylist()
    if isinstance(distinct_values, _Unreadable):
        return [None]
    if pa.types.is_float16(distinct_values.type) or pa.types.is_float32(distinct_values.type):
        # The shortest decimal that gives the same single, unless the number is whole.
        singles = distinct_values.to_numpy(zero_copy_only=False)
        return [
            text_of(number if number.is_integer() else float(str(single)))
            for number, single in zip(map(float, singles), singles, strict=True)
        ]
    return [as_text(value) for value in values]


def as_text(value: object) -> str | None:
    """Convert one value to text: empty if missing, None if it can't be text."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, bool | int | float | Decimal):
        return text_of(value)
    return None if isinstance(value, _Unreadable) else str(value)


def show_cells(column: pa.Array, places: Codes) -> list[str]:
    """The cells at these positions as text, for the `given` of problems."""
    codes, values = encode(column)
    return ["nothing" if code < 0 else _show(values[code]) for code in codes[places].tolist()]


def _show(value: object) -> str:
    if isinstance(value, _Unreadable):
        return str(value)
    if isinstance(value, float) and value == value:
        return repr(value)
    text = as_text(value)
    if text is None:
        return show_bytes(value) if isinstance(value, bytes) else show_value(value)
    if not text:
        return "nothing"
    if not isinstance(value, bytes):
        return text
    try:
        number = parse_number(text)
    except ValueError:
        return show_value(text)
    return show_value(text) if number is None or len(text) > 60 else text.strip()


class _Unreadable:
    """The value of each cell of a column whose type no field can hold."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def to_pylist(self) -> list[Any]:
        """This value, the only one of its column."""
        return [self]

    def __str__(self) -> str:
        return f"a value of type {self._kind}"


def decoded(column: pa.Array) -> pa.Array:
    """Unwrap a column: no dictionary, run-end encoding or extension type.

    Texts become bytes, since text need not be valid UTF-8, even in Parquet. A UUID becomes its
    text.
    """
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _stored(column)
    if pa.types.is_run_end_encoded(kind):
        rows = np.arange(column.offset, column.offset + len(column))
        places = np.searchsorted(column.run_ends.to_numpy(), rows, side="right")
        return decoded(column.values).take(pa.array(places))
    if pa.types.is_dictionary(kind):
        return decoded(column.dictionary).take(column.indices)
    if is_text(kind):
        return _to_bytes(column)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return column.cast(pa.decimal128(kind.precision, kind.scale))
    return column


def _stored(column: pa.ExtensionArray) -> pa.Array:
    """The values of a column of an extension type."""
    name, storage = column.type.extension_name, column.storage
    if name == "arrow.bool8":
        return pc.not_equal(storage, 0)
    if name == "arrow.uuid":
        texts = [value and str(UUID(bytes=value)).encode() for value in storage.to_pylist()]
        return pa.array(texts, pa.binary())
    return decoded(storage)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds texts or bytes."""
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or is_bytes(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type holds bytes, which need not be text."""
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _to_bytes(column: pa.Array) -> pa.Array:
    return column.cast(pa.binary())


def _parse_numbers(column: pa.Array) -> tuple[Numbers, Mask]:
    empty = pc.equal(pc.binary_length(column), 0)
    if pc.any(empty).as_py():
        column = pc.if_else(empty, None, column)
    try:
        numbers = _to_float64(_cast(column))
    except pa.ArrowInvalid:
        plain = pc.match_substring_regex(column, _PLAIN_NUMBER)
        numbers = _to_float64(_cast(pc.if_else(plain, column, None)))
    # Arrow parses "inf", "nan" and numbers that overflow to infinity
    rest = ~np.isfinite(numbers) & _is_present(column)
    wrong = np.zeros(len(column), dtype=np.bool_)
    if rest.any():
        codes, values = encode(column.filter(pa.array(rest)))
        parsed = [_parse_number(value) for value in values]
        numbers = numbers.copy()
        numbers[rest] = np.array([number for number, _ in parsed])[codes]
        wrong[rest] = np.array([fault for _, fault in parsed])[codes]
    return numbers, wrong


def _parse_number(value: bytes) -> tuple[float, bool]:
    try:
        number = parse_number(value.decode("utf-8"))
    except ValueError:  # UnicodeDecodeError is one
        return np.nan, True
    return (np.nan if number is None else number), False


def _cast(column: pa.Array) -> pa.Array:
    return column.cast(pa.string()).cast(pa.float64())


def _to_float64(column: pa.Array) -> Numbers:
    numbers: Numbers = column.to_numpy(zero_copy_only=False)
    return numbers


def _is_present(column: pa.Array) -> Mask:
    present: Mask = column.is_valid().to_numpy(zero_copy_only=False)
    return present
