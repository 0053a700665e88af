"""Folders whose files have a column in different types: exact values, or an error."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerloan.book import BookError, open_book, read_cells, read_column, read_loans
from peerloan.book.common_type import InexactError, cast, common_type
from peerloan.loan import parse_definition
from peerloan.loan.spelling import text_of

DEFINITION = parse_definition(
    'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n[roles]\nid = "key"\n'
    '[[field]]\nname = "n"\nkind = "number"\nlabel = "N"\nmissing = true\n'
    '[[field]]\nname = "t"\nkind = "category"\nlabel = "T"\nmissing = true\n',
    "test",
)
INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
INTEGERS += [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
NUMBERS = [
    *INTEGERS,
    *(pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal128(20, 0), pa.decimal128(24, 3), pa.decimal256(50, 5)),
    *(pa.dictionary(pa.int32(), pa.int64()), pa.null()),
]
# Where doubles, singles and integers part.
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([2**53, 2**53 + 1, 2**24 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1, 0, 11]),
    st.integers(-(2**11), 2**11).map(lambda n: n / 8),
    st.floats(-1e150, 1e150),  # whose digits are a text of at most 200
)


def as_type(value: Any, kind: pa.DataType) -> Any:
    """A value as a column of this type holds it, or None if it doesn't."""
    try:
        if pa.types.is_decimal(kind) and value is not None:
            value = Decimal(value)
        elif pa.types.is_floating(kind) and value is not None:
            value = float(value)
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        held = pa.array([value], inner)[0].as_py()
        # Of more than 200 digits, as 1e200 has, no text is made.
        return None if isinstance(held, float) and abs(held) >= 1e199 else held
    except (pa.ArrowException, OverflowError, TypeError):
        return None


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    return pa.array(values, kind)


def number(value: Any) -> Fraction | None:
    return None if value is None else Fraction(value)


def text(value: Any, kind: pa.DataType) -> str | None:
    """What a cell of this type says, in the plain spelling."""
    if value is None:
        return None
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        single = pa.array([value], kind).to_numpy(zero_copy_only=False)[0]
        value = float(value) if float(value).is_integer() else float(str(single))
    return text_of(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_a_folder_gives_the_values_of_its_files(
    tmp_path: Path, values: list[Any], data: st.DataObject
) -> None:
    kinds = data.draw(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)))
    expected: list[tuple[Any, pa.DataType]] = []
    for i, kind in enumerate(kinds):
        held = [as_type(value, kind) for value in values]
        expected += [(value, kind) for value in held]
        column = array(held, kind)
        names = ["key", "n", "t", "other"]
        pq.write_table(pa.table([column] * 4, names), tmp_path / f"{i}.parquet")
    book = open_book(tmp_path)
    texts = [text(value, kind) for value, kind in expected]
    parts = list(book.parts())
    batches = [read_loans(DEFINITION, part) for part in parts]
    assert [each for batch in batches for each in batch.ids or ()] == texts
    assert [each for batch in batches for each in batch.loans.texts("t").values()] == texts
    assert [each for part in parts for each in read_column(part, "other")] == texts
    read = [each for batch in batches for each in batch.loans.numbers("n").tolist()]
    for found, (value, _) in zip(read, expected, strict=True):
        assert math.isnan(found) if value is None else found == float(value)
    kind = book.schema.field("other").type
    written: list[Any] = []
    try:
        for part in parts:
            written += cast(part.records.column("other"), kind).to_pylist()
    except InexactError:
        return
    assert list(map(number, written)) == [number(value) for value, _ in expected]


TIMES = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us") for zone in (None, "UTC")]
TIMES += [pa.timestamp("us", "Europe/Berlin"), pa.date32(), pa.date64()]
MOMENTS = st.datetimes(datetime.datetime(1, 1, 3), datetime.datetime(9999, 12, 30))


@given(MOMENTS, st.sampled_from(TIMES), st.sampled_from([*TIMES, pa.timestamp("ns")]))
def test_times_are_not_changed_by_a_common_type(
    moment: datetime.datetime, some: pa.DataType, other: pa.DataType
) -> None:
    kind = common_type(some, other)
    assert kind == common_type(other, some)
    zoned = [pa.types.is_timestamp(each) and each.tz is not None for each in (some, other)]
    if kind is None:
        assert zoned[0] != zoned[1]
        return
    day = pa.array([moment.date()], pa.date32())
    seconds = pa.array([moment.replace(microsecond=0)], pa.timestamp("s"))
    column = day.cast(some) if pa.types.is_date(some) else seconds.cast(some)
    try:
        found = cast(column, kind)
    except InexactError:
        # A 64-bit count of nanoseconds ends in 2262.
        assert kind.unit == "ns"
        assert not 1678 < moment.year < 2262
        return
    assert found.cast(some).equals(column)
    assert found.cast(pa.date32(), safe=False).equals(column.cast(pa.date32(), safe=False)) or (
        some != other and any(zoned)
    )


@pytest.mark.parametrize(
    ("some", "other", "kind"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int8(), pa.uint8(), pa.int16()),
        (pa.int64(), pa.uint64(), pa.decimal128(20, 0)),
        (pa.int64(), pa.decimal128(5, 2), pa.decimal128(21, 2)),
        (pa.decimal128(38, 0), pa.decimal128(38, 38), pa.decimal256(76, 38)),
        (pa.decimal256(76, 0), pa.decimal256(76, 76), None),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string_view(), pa.string(), pa.string()),
        (pa.string(), pa.binary(3), pa.binary()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.null(), pa.dictionary(pa.int8(), pa.string())),
        (pa.dictionary(pa.int8(), pa.int8()), pa.dictionary(pa.int8(), pa.int64()), pa.int64()),
        (pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
        (
            pa.struct([("a", pa.int8())]),
            pa.struct([("a", pa.int16())]),
            pa.struct([("a", pa.int16())]),
        ),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), None),
        (pa.duration("s"), pa.duration("us"), pa.duration("us")),
        (pa.time32("s"), pa.time64("ns"), pa.time64("ns")),
        (pa.uuid(), pa.uuid(), pa.uuid()),
        (pa.uuid(), pa.string(), None),
        (pa.int64(), pa.string(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.bool_(), pa.string(), None),
        (pa.date32(), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC")),
    ],
)
def test_the_common_type_of_two_types(some: Any, other: Any, kind: Any) -> None:
    assert common_type(some, other) == kind
    assert common_type(other, some) == kind
    if kind is not None:
        for each in (some, other):
            assert cast(pa.nulls(2, each), kind).equals(pa.nulls(2, kind))


def test_files_without_a_common_type_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(1)}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"a": [True]}), tmp_path / "3.parquet")
    with pytest.raises(BookError) as caught:
        open_book(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/3.parquet: column a: expected a type compatible with int64, "
        f"as in {tmp_path}/2.parquet, got bool"
    )


def test_the_day_of_a_time_is_that_of_its_zone(tmp_path: Path) -> None:
    late = datetime.datetime(2026, 11, 24, 23, 30, tzinfo=datetime.UTC)
    column = pa.array([late, late], pa.timestamp("us", "UTC"))
    for zone, day in (("UTC", "2026-11-24"), ("Europe/Berlin", "2026-11-25")):
        pq.write_table(
            pa.table({"date": column.cast(pa.timestamp("us", zone))}),
            tmp_path / "a.parquet",
        )
        (part,) = open_book(tmp_path / "a.parquet").parts()
        assert read_cells(part, "date") == [day, day]
