"""From one column of any type to numbers or coded texts, exactly as one value would be read.

Arrow reads what it can, all at once; what it can't, or reads by other rules, goes value by value
through the rules of `peerloan.loan`, each distinct value once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from peerloan.book.formats.encodings import show_bytes
from peerloan.loan import Codes, Numbers, TextColumn
from peerloan.loan.text import MAX_TEXT, parse_number, show_given, text_fault

Mask = npt.NDArray[np.bool_]

# What Arrow and `parse_number` read alike, down to the last bit.
_PLAIN_NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$"


def read_numbers(column: pa.Array) -> tuple[Numbers, Mask]:
    """Values as float64, NaN where missing or wrong, and a mask of the wrong ones.

    Text is read by `parse_number`. An infinite number is wrong, a NaN is missing; a truth value
    or a date is wrong.
    """
    column = _plain(column)
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


def read_texts(column: pa.Array, levels: Collection[str] | None) -> tuple[TextColumn, Mask]:
    """Values as coded text, code −1 where missing or wrong, and a mask of the wrong ones.

    Right are the `levels`, or else any text without a fault. Only an empty text is missing. A
    number, truth value or date of a typed column becomes its text as CSV would have it.
    """
    codes, different = _encoded(column)
    if levels is None and (plain := _plain_texts(different)) is not None:
        return TextColumn(codes, plain), np.zeros(len(codes), dtype=np.bool_)
    values = different.to_pylist()
    found: list[str] = []
    # By the value's code; the last entry is for missing ones, which have code −1.
    table = np.full(len(values) + 1, -1, dtype=np.int64)
    wrong = np.zeros(len(values) + 1, dtype=np.bool_)
    for code, value in enumerate(values):
        text = as_text(value)
        if text == "":
            continue
        if text is None or (text_fault(text) if levels is None else text not in levels):
            wrong[code] = True
        else:
            table[code] = len(found)
            found.append(text)
    return TextColumn(table[codes], tuple(found)), wrong[codes]


def _plain_texts(different: pa.Array | _Unreadable) -> tuple[str, ...] | None:
    """Texts all at once, if each of them is one without a fault, of letters of ASCII alone."""
    if isinstance(different, _Unreadable) or not pa.types.is_binary(different.type):
        return None
    lengths = pc.min_max(pc.binary_length(different)).as_py()
    if not lengths["min"] or lengths["max"] > MAX_TEXT:
        return None
    if pc.any(pc.match_substring_regex(different, "[^ -~]")).as_py():
        return None
    try:
        return tuple(different.cast(pa.string()).to_pylist())
    except pa.ArrowInvalid:  # bytes that are no text at all
        return None


def encode(column: pa.Array) -> tuple[Codes, list[Any]]:
    """A column by code: its distinct values as they come, and each row's place there, −1 a null."""
    codes, different = _encoded(column)
    return codes, different.to_pylist()


def _encoded(column: pa.Array) -> tuple[Codes, pa.Array | _Unreadable]:
    column = _plain(column)
    try:
        if pa.types.is_duration(column.type):
            raise pa.ArrowNotImplementedError  # as text it would be a count of no known unit
        if pa.types.is_temporal(column.type):
            column = _bytes(column.cast(pa.string()))
        encoded = column.dictionary_encode()
    except pa.ArrowException:  # a list or a structure; a duration; a time in an unknown zone
        codes = np.where(_present(column), np.int64(0), np.int64(-1))
        return codes, _Unreadable(str(column.type))
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary


def as_text(value: object) -> str | None:
    """One value as text, empty if missing; None if it is none."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, _Unreadable):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if value != value else repr(value)
    return str(value)


def show_cells(column: pa.Array, places: Codes) -> list[str]:
    """What stands at some places of a column, for the `given` of problems."""
    codes, values = encode(_plain(column).take(pa.array(places)))
    shown = [*map(_show, values), "nothing"]
    return [shown[code] for code in codes]


def _show(value: object) -> str:
    if isinstance(value, _Unreadable):
        return str(value)
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


def _plain(column: pa.Array) -> pa.Array:
    """A column without dictionary, texts as bytes: text need not be valid UTF-8 even in Parquet."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind in (pa.string_view(), pa.binary_view())
    ):
        return _bytes(column)
    return column


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
