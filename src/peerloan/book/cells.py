"""From one column of any type to numbers or coded texts, exactly as one value would be read.

Arrow reads what it can, all at once; what it can't, or reads by other rules, goes value by value
through the rules of `peerloan.loan`, each distinct value once.
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
from peerloan.loan import Field, TextColumn
from peerloan.loan.spelling import RESPELLED, Spelling, plain, text_of
from peerloan.loan.text import MAX_TEXT, parse_number, show_given, text_fault
from peerloan.stats.arrays import Codes, Numbers

Mask = npt.NDArray[np.bool_]

# What Arrow and `parse_number` read alike, down to the last bit.
_PLAIN_NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$"


def read_numbers(column: pa.Array) -> tuple[Numbers, Mask]:
    """Values as float64, NaN where missing or wrong, and a mask of the wrong ones.

    Text is read by `parse_number`. An infinite number is wrong, a NaN is missing; a truth value
    or a date is wrong. A number with more digits than a double has becomes the nearest double, in
    every format: that is what a number of a loan is.
    """
    column = decoded(column)
    kind = column.type
    if pa.types.is_binary(kind):
        return _parse_numbers(column)
    if pa.types.is_decimal(kind):
        return _parse_numbers(_bytes(column.cast(pa.string())))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = _float64(column.cast(pa.float64(), safe=False))
        wrong = np.isinf(numbers)
        return np.where(wrong, np.nan, numbers), wrong
    return np.full(len(column), np.nan), _present(column)


def read_texts(column: pa.Array, field: Field | None = None) -> tuple[TextColumn, Mask]:
    """Values as coded text, code −1 where missing or wrong, and a mask of the wrong ones.

    Right are the levels of an ordered field, or else any text without a fault; each in the spelling
    of the field, or else in its plain one. Only an empty text is missing.
    """
    codes, different = _encoded(column)
    spelling = Spelling() if field is None else Spelling.of(field)
    levels = None if field is None or field.kind != "ordered" else frozenset(field.levels)
    if levels is None and spelling.is_plain:
        texts = _plain_texts(different)
        if texts is not None:
            return TextColumn(codes, texts), np.zeros(len(codes), dtype=np.bool_)
    given = _texts(different)
    places: dict[str, int] = {}
    # By the value's code; the last entry is for missing ones, which have code −1.
    table = np.full(len(given) + 1, -1, dtype=np.int64)
    wrong = np.zeros(len(given) + 1, dtype=np.bool_)
    for code, each in enumerate(given):
        if each == "":
            continue
        text = None if each is None else spelling(each)
        if text is None or (text_fault(text) if levels is None else text not in levels):
            wrong[code] = True
        else:
            table[code] = places.setdefault(text, len(places))
    return TextColumn(table[codes], tuple(places)), wrong[codes]


def _plain_texts(different: pa.Array | _Unreadable) -> tuple[str, ...] | None:
    """Texts all at once, if each of them is one without a fault and in its plain spelling, of
    letters of ASCII alone.
    """
    if isinstance(different, _Unreadable):
        return None
    if pa.types.is_integer(different.type):
        return tuple(different.cast(pa.string()).to_pylist())
    if not pa.types.is_binary(different.type):
        return None
    lengths = pc.min_max(pc.binary_length(different)).as_py()
    if not lengths["min"] or lengths["max"] > MAX_TEXT:
        return None
    if pc.any(pc.match_substring_regex(different, f"[^ -~]|{RESPELLED}")).as_py():
        return None
    try:
        return tuple(different.cast(pa.string()).to_pylist())
    except pa.ArrowInvalid:  # bytes that are no text at all
        return None


def encode(column: pa.Array) -> tuple[Codes, list[Any]]:
    """A column by code: its distinct values as they come, and each row's place there, −1 a null."""
    codes, different = _encoded(column)
    return codes, different.to_pylist()


def encode_texts(column: pa.Array) -> tuple[Codes, list[str | None]]:
    """A column by code: its distinct values as plain texts, empty if missing, None for what is
    none; and each row's place there, −1 a null. Two values may have one text.
    """
    codes, different = _encoded(column)
    return codes, [text and plain(text) for text in _texts(different)]


def _encoded(column: pa.Array) -> tuple[Codes, pa.Array | _Unreadable]:
    column = decoded(column)
    try:
        if not _is_scalar(column.type):
            raise pa.ArrowNotImplementedError
        if pa.types.is_temporal(column.type):
            column = _bytes(column.cast(pa.string()))
        encoded = column.dictionary_encode()
    except pa.ArrowException:  # also a time in an unknown zone
        codes = np.where(_present(column), np.int64(0), np.int64(-1))
        return codes, _Unreadable(str(column.type))
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary


def _is_scalar(kind: pa.DataType) -> bool:
    """Whether values of a decoded column can be texts or numbers. A duration's count has no unit
    that a text would show.
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


def _texts(different: pa.Array | _Unreadable) -> list[str | None]:
    """Distinct values as texts, empty if missing, None for what is none."""
    values = different.to_pylist()
    if isinstance(different, _Unreadable):
        return [None]
    if pa.types.is_float16(different.type) or pa.types.is_float32(different.type):
        # A number that is not whole has the fewest digits that give the same single.
        singles = different.to_numpy(zero_copy_only=False)
        return [
            text_of(each if each.is_integer() else float(str(single)))
            for each, single in zip(map(float, singles), singles, strict=True)
        ]
    return [as_text(value) for value in values]


def as_text(value: object) -> str | None:
    """One value as text, empty if missing; None if it is none."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, bool | int | float | Decimal):
        return text_of(value)
    return None if isinstance(value, _Unreadable) else str(value)


def show_cells(column: pa.Array, places: Codes) -> list[str]:
    """What stands at some places of a column, for the `given` of problems."""
    codes, values = encode(column)
    return ["nothing" if code < 0 else _show(values[code]) for code in codes[places].tolist()]


def _show(value: object) -> str:
    if isinstance(value, _Unreadable):
        return str(value)
    if isinstance(value, float) and value == value:
        return repr(value)
    text = as_text(value)
    if text is None:
        return show_bytes(value) if isinstance(value, bytes) else show_given(value)
    if not text:
        return "nothing"
    if not isinstance(value, bytes):
        return text
    try:
        number = parse_number(text)
    except ValueError:
        return show_given(text)
    return show_given(text) if number is None or len(text) > 60 else text.strip()


class _Unreadable:
    """A value of a type that no field has."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def to_pylist(self) -> list[Any]:
        """The only value of its column."""
        return [self]

    def __str__(self) -> str:
        return f"a value of type {self._kind}"


def decoded(column: pa.Array) -> pa.Array:
    """A column as its values are, without dictionary, runs or extension; texts as bytes, since
    text need not be valid UTF-8 even in Parquet. A UUID is text.
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
        return _bytes(column)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return column.cast(pa.decimal128(kind.precision, kind.scale))
    return column


def _stored(column: pa.ExtensionArray) -> pa.Array:
    """What a column of an extension type stands for."""
    name, storage = column.type.extension_name, column.storage
    if name == "arrow.bool8":
        return pc.not_equal(storage, 0)
    if name == "arrow.uuid":
        texts = [value and str(UUID(bytes=value)).encode() for value in storage.to_pylist()]
        return pa.array(texts, pa.binary())
    return decoded(storage)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds texts or bytes, one way or another."""
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


def _bytes(column: pa.Array) -> pa.Array:
    return column.cast(pa.binary())


def _parse_numbers(column: pa.Array) -> tuple[Numbers, Mask]:
    empty = pc.equal(pc.binary_length(column), 0)
    if pc.any(empty).as_py():
        column = pc.if_else(empty, None, column)
    try:
        numbers = _float64(_cast(column))
    except pa.ArrowInvalid:
        plain = pc.match_substring_regex(column, _PLAIN_NUMBER)
        numbers = _float64(_cast(pc.if_else(plain, column, None)))
    # "inf" and "nan" are numbers to Arrow, and 1 with 400 zeros is infinite
    rest = ~np.isfinite(numbers) & _present(column)
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


def _float64(column: pa.Array) -> Numbers:
    numbers: Numbers = column.to_numpy(zero_copy_only=False)
    return numbers


def _present(column: pa.Array) -> Mask:
    present: Mask = column.is_valid().to_numpy(zero_copy_only=False)
    return present
