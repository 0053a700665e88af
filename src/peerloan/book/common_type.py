"""Common column types of several files, and casts that change no value."""

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
    """A value that the target type can't hold; `place` is its position in the column."""

    def __init__(self, place: int) -> None:
        super().__init__(f"row {place}")
        self.place = place


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """A type that values of both types can be cast to, or None.

    It need not represent every value exactly: a double represents only some 64-bit integers. `cast`
    raises InexactError for values that it would change.
    """
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    first, second = _values_of(first), _values_of(second)
    if first == second:
        return first
    if is_text(first) and is_text(second):
        return _common_text(first, second)
    for rule in (_common_number, _common_time, _common_nested):
        if (common := rule(first, second)) is not None:
            return common
    return None


def cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast a column to a type from `common_type`; raises InexactError if a value would change."""
    if column.type == kind:
        return column
    if (result := _cast_exactly(column, kind)) is not None:
        return result
    for place in range(len(column)):
        if _cast_exactly(column.slice(place, 1), kind) is None:
            raise InexactError(place)
    raise InexactError(0)


def _cast_exactly(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    source = column.type
    try:
        if pa.types.is_null(source):
            return pa.nulls(len(column), kind)
        if _values_of(source) != source:
            # Unwrap the dictionary or run-end encoding first; that changes no value.
            return _cast_exactly(column.cast(_values_of(source)), kind)
        if pa.types.is_floating(source):
            return column.cast(kind)  # the target is at least as wide
        if pa.types.is_decimal(source) and pa.types.is_floating(kind):
            return _to_doubles(column, kind)
        # Arrow's safe cast refuses every integer beyond 2^53, even one that a double holds exactly.
        # So cast without the check, cast back and compare.
        result = column.cast(kind, safe=not pa.types.is_integer(source))
        return result if _is_same(result.cast(source), column) else None
    except (pa.ArrowException, ValueError):
        return None


def _is_same(first: pa.Array, second: pa.Array) -> bool:
    # In Arrow, NaN is not equal to NaN, not even inside a list.
    return bool(first.equals(second)) or (
        pa.types.is_nested(second.type) and repr(first.to_pylist()) == repr(second.to_pylist())
    )


def _to_doubles(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    values = column.to_pylist()
    if any(value is not None and Decimal(float(value)) != value for value in values):
        return None
    return pa.array([None if value is None else float(value) for value in values], kind)


def _values_of(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, without dictionary or runs."""
    wrapped = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return _values_of(kind.value_type) if wrapped else kind


def _common_text(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    large = any(map(pa.types.is_large_unicode, (first, second)))
    large |= any(map(pa.types.is_large_binary, (first, second)))
    if is_bytes(first) or is_bytes(second):
        return pa.large_binary() if large else pa.binary()
    return pa.large_string() if large else pa.string()


def _common_number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    both = (first, second)
    if not all(map(_is_number, both)):
        return None
    if all(map(pa.types.is_floating, both)):
        return max(both, key=lambda kind: kind.bit_width)
    if any(map(pa.types.is_floating, both)):
        return pa.float64()
    if all(map(pa.types.is_integer, both)):
        if pa.types.is_signed_integer(first) == pa.types.is_signed_integer(second):
            return max(both, key=lambda kind: kind.bit_width)
        # One bit more than the unsigned type has, for the sign.
        bits = max(kind.bit_width + pa.types.is_unsigned_integer(kind) for kind in both)
        if signed := next((kind for kind in _INTEGERS if kind.bit_width >= bits), None):
            return signed
    digits, scales = zip(*map(_digits_of, both), strict=True)
    scale = max(scales)
    return _decimal_type(max(digits) + scale, scale)


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _digits_of(kind: pa.DataType) -> tuple[int, int]:
    """Digits before and after the decimal point that values of an integer or decimal type have."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, max(kind.scale, 0)
    return len(str(2 ** (kind.bit_width - pa.types.is_signed_integer(kind)))), 0


def _decimal_type(precision: int, scale: int) -> pa.DataType | None:
    if precision > _WIDEST:
        return None
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _common_time(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    both = (first, second)
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
        return None  # a date, or a time without a zone, is not a moment
    zone = zones.pop() if len(zones) == 1 else "UTC"
    return pa.timestamp(_UNITS[max(map(_unit, stamps))], zone)


def _unit(kind: pa.DataType) -> int:
    return _UNITS.index(kind.unit)


def _common_nested(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if all(types.is_list(kind) or types.is_large_list(kind) for kind in (first, second)):
        inner = common_type(first.value_type, second.value_type)
        large = types.is_large_list(first) or types.is_large_list(second)
        return inner and (pa.large_list(inner) if large else pa.list_(inner))
    if types.is_struct(first) and types.is_struct(second):
        names = [field.name for field in first]
        if names != [field.name for field in second]:
            return None
        kinds = [common_type(a.type, b.type) for a, b in zip(first, second, strict=True)]
        if None not in kinds:
            return pa.struct(list(zip(names, kinds, strict=True)))
    return None
