"""Types that hold the values of two files of a folder exactly, and casts that change no value."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa

from peerloan.book.cells import is_bytes, is_text
from peerloan.errors import PeerLoanError

_UNITS = ("s", "ms", "us", "ns")
_TIMES = (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
_INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_WIDEST = 76


class InexactError(PeerLoanError, ValueError):
    """A value that another type can't hold; `place` is its row in the column."""

    def __init__(self, place: int) -> None:
        super().__init__(f"row {place}")
        self.place = place


def common_type(some: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that may hold all values of two types, or None.

    Where it holds only some of them, as a double holds some of the long integers, `cast` refuses
    the others.
    """
    if some == other or pa.types.is_null(other):
        return some
    if pa.types.is_null(some):
        return other
    some, other = _values_of(some), _values_of(other)
    if some == other:
        return some
    if is_text(some) and is_text(other):
        return _common_text(some, other)
    for rule in (_common_number, _common_time, _common_nested):
        if (found := rule(some, other)) is not None:
            return found
    return None


def cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as a common type of its own; raises InexactError if a value would be another."""
    if column.type == kind:
        return column
    if (found := _exactly(column, kind)) is not None:
        return found
    for place in range(len(column)):
        if _exactly(column.slice(place, 1), kind) is None:
            raise InexactError(place)
    raise InexactError(0)


def _exactly(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    own = column.type
    try:
        if pa.types.is_null(own):
            return pa.nulls(len(column), kind)
        if _values_of(own) != own:
            # To the type of its values first, which a dictionary or runs hold as they are.
            return _exactly(column.cast(_values_of(own)), kind)
        if pa.types.is_floating(own):
            return column.cast(kind)  # which is as wide or wider
        if pa.types.is_decimal(own) and pa.types.is_floating(kind):
            return _doubles(column, kind)
        # Arrow takes no integer beyond 2^53 for one that a double holds; the way back finds those.
        found = column.cast(kind, safe=not pa.types.is_integer(own))
        return found if _same(found.cast(own), column) else None
    except (pa.ArrowException, ValueError):
        return None


def _same(some: pa.Array, other: pa.Array) -> bool:
    # Arrow takes no NaN for the same as another, not even within a list.
    return bool(some.equals(other)) or (
        pa.types.is_nested(other.type) and repr(some.to_pylist()) == repr(other.to_pylist())
    )


def _doubles(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    values = column.to_pylist()
    if any(value is not None and Decimal(float(value)) != value for value in values):
        return None
    return pa.array([None if value is None else float(value) for value in values], kind)


def _values_of(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, without dictionary or runs."""
    wrapped = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return _values_of(kind.value_type) if wrapped else kind


def _common_text(some: pa.DataType, other: pa.DataType) -> pa.DataType:
    large = any(map(pa.types.is_large_unicode, (some, other)))
    large |= any(map(pa.types.is_large_binary, (some, other)))
    if is_bytes(some) or is_bytes(other):
        return pa.large_binary() if large else pa.binary()
    return pa.large_string() if large else pa.string()


def _common_number(some: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    both = (some, other)
    if not all(map(_is_number, both)):
        return None
    if all(map(pa.types.is_floating, both)):
        return max(both, key=lambda kind: kind.bit_width)
    if any(map(pa.types.is_floating, both)):
        return pa.float64()
    if all(map(pa.types.is_integer, both)):
        if pa.types.is_signed_integer(some) == pa.types.is_signed_integer(other):
            return max(both, key=lambda kind: kind.bit_width)
        # A bit more than the unsigned one has, for the sign.
        bits = max(kind.bit_width + pa.types.is_unsigned_integer(kind) for kind in both)
        if found := next((kind for kind in _INTEGERS if kind.bit_width >= bits), None):
            return found
    digits, scales = zip(*map(_digits, both), strict=True)
    scale = max(scales)
    return _decimal(max(digits) + scale, scale)


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """How many digits an integer's or a decimal's values have before and behind the point."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, max(kind.scale, 0)
    return len(str(2 ** (kind.bit_width - pa.types.is_signed_integer(kind)))), 0


def _decimal(precision: int, scale: int) -> pa.DataType | None:
    if precision > _WIDEST:
        return None
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _common_time(some: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    both = (some, other)
    types = pa.types
    if all(map(types.is_date, both)):
        return pa.date32()
    if all(map(types.is_time, both)):
        return _TIMES[max(map(_unit, both))]
    if all(map(types.is_duration, both)):
        return pa.duration(_UNITS[max(map(_unit, both))])
    stamps = [kind for kind in both if types.is_timestamp(kind)]
    if not stamps or not all(types.is_date(kind) or types.is_timestamp(kind) for kind in both):
        return None
    zones = {kind.tz if types.is_timestamp(kind) else None for kind in both}
    if None in zones and len(zones) > 1:
        return None  # a day or a time of no known zone is no moment
    zone = zones.pop() if len(zones) == 1 else "UTC"
    return pa.timestamp(_UNITS[max(map(_unit, stamps))], zone)


def _unit(kind: pa.DataType) -> int:
    return _UNITS.index(kind.unit)


def _common_nested(some: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if all(types.is_list(kind) or types.is_large_list(kind) for kind in (some, other)):
        inner = common_type(some.value_type, other.value_type)
        large = types.is_large_list(some) or types.is_large_list(other)
        return inner and (pa.large_list(inner) if large else pa.list_(inner))
    if types.is_struct(some) and types.is_struct(other):
        names = [field.name for field in some]
        if names != [field.name for field in other]:
            return None
        kinds = [common_type(a.type, b.type) for a, b in zip(some, other, strict=True)]
        if None not in kinds:
            return pa.struct(list(zip(names, kinds, strict=True)))
    return None
