"""Checking parts of a book by column gives the same results as checking single loans."""

from __future__ import annotations

import datetime
import decimal
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import (
    BookError,
    CheckedPart,
    Part,
    check_columns,
    join_loans,
    open_book,
    read_cells,
    read_loans,
)
from peerloan.loan import Checks, Definition, Loans, default_definition, parse_definition
from peerloan.loan.text import parse_number

HEAD = """
model = "m"
[label]
column = "y"
late = 1
on_time = 0
"""
MIXED = parse_definition(
    HEAD
    + """
[roles]
id = "key"
[[field]]
name = "free"
kind = "number"
label = "Free"
missing = true
[[field]]
name = "rate"
kind = "number"
label = "Rate"
above = 0
max = 1
[[field]]
name = "count"
kind = "whole"
label = "Count"
min = 0
[[field]]
name = "town"
kind = "category"
label = "Town"
missing = true
[[field]]
name = "grade"
kind = "ordered"
label = "Grade"
levels = ["A", "B", "10+ years"]
""",
    "test",
)
ONE_NUMBER = parse_definition(
    HEAD + '[[field]]\nname = "x"\nkind = "number"\nlabel = "X"\nmissing = true\n', "test"
)
ONE_TEXT = parse_definition(
    HEAD + '[[field]]\nname = "x"\nkind = "category"\nlabel = "X"\nmissing = true\n', "test"
)
PLAIN = {"free": 1.0, "rate": 0.5, "count": 2, "town": "Köln", "grade": "A"}


def part(**columns: Any) -> Part:
    records = pa.RecordBatch.from_pydict(columns)
    return Part(records, np.arange(1, records.num_rows + 1), [])


def number_of(column: pa.Array) -> tuple[list[float | None], list[tuple[int | None, str]]]:
    """A number's column as values (None for missing) and problems as (row, given)."""
    batch = read_loans(ONE_NUMBER, part(x=column))
    values = [None if value != value else value for value in batch.loans.numbers("x").tolist()]
    return values, [(problem.loan, problem.given) for problem in batch.problems]


def text_of(column: pa.Array) -> tuple[list[str | None], list[tuple[int | None, str]]]:
    batch = read_loans(ONE_TEXT, part(x=column))
    values = [row[0] for row in batch.loans.rows()]
    assert all(value is None or isinstance(value, str) for value in values)
    return values, [(problem.loan, problem.given) for problem in batch.problems]  # type: ignore[return-value]


NUMBER_TEXTS = st.one_of(
    st.floats().map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.25e}"),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.text(st.sampled_from("0123456789+-.eE"), max_size=12),
    st.text(st.sampled_from("01_xXpPinfaNul/%,;' \t\n\r\x00\xa0\x85\u2003٣½"), max_size=8),
    st.sampled_from(
        [
            *("", " ", "NA", " n/a ", "NaN", "nan", "-nan", "nan(1)", "null", "None", "inf"),
            *("-Infinity", "1e999", "-1e999", "1e-999", "0x1p3", "1_000", "+.5", "5.", ".", "1e"),
            *("4.9e-324", "2.5e-324", "1.7976931348623159e308", "9007199254740993", "-0", " 1 "),
            *("0." + "1" * 800, "1" + "0" * 400, "1\x00", "٣", "1d5", "13.06%", "1,5", "TRUE"),
        ]
    ),
)


@given(st.lists(NUMBER_TEXTS, max_size=12))
def test_a_text_column_gives_the_same_doubles_as_single_texts(texts: list[str]) -> None:
    expected: list[float | None] = []
    wrong = []
    for row, text in enumerate(texts, 1):
        try:
            expected.append(parse_number(text))
        except ValueError:
            wrong.append(row)
    for column in (
        pa.array([text.encode() for text in texts], pa.binary()),
        pa.array(texts, pa.large_string()),
        pa.array(texts, pa.string()).dictionary_encode(),
    ):
        values, problems = number_of(column)
        assert [row for row, _ in problems] == wrong
        assert list(map(bits, values)) == list(map(bits, expected))


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


NUMBERS = st.one_of(
    st.none(), st.floats(), st.floats(-2, 2), st.integers(-3, 3).map(float), st.just(-0.0)
)
TEXTS = st.one_of(
    st.none(),
    st.sampled_from(
        ["A", "B", "10+ years", "a", " A", "A ", "nan", "NA", "1.0", "\x00", "x" * 201]
    ),
    st.text(st.characters(), min_size=1, max_size=5),
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    return {field.name: draw(NUMBERS if field.is_number else TEXTS) for field in MIXED.fields}


def verdict(record: dict[str, Any]) -> tuple[list[str], tuple[Any, ...]]:
    checked = Checks(MIXED).loan(
        # a NaN, which JSON can't say, is missing in a book
        {name: None if value != value else value for name, value in record.items()}
    )
    return [problem.field for problem in checked.problems], checked.values


def assert_same_verdicts(rows: list[dict[str, Any]], batch: CheckedPart) -> None:
    verdicts = [verdict(row) for row in rows]
    found: list[list[str]] = [[] for _ in rows]
    for problem in batch.problems:
        assert problem.loan is not None
        found[problem.loan - 1].append(problem.field)
        # Of NA where levels are listed, it also says what to do.
        assert problem.expected.split("; NA")[0] == MIXED[problem.field].expected
    assert found == [fields for fields, _ in verdicts]
    assert batch.good.tolist() == [not fields for fields, _ in verdicts]
    assert batch.loans.rows() == [values for fields, values in verdicts if not fields]


@given(st.lists(records(), min_size=1, max_size=6))
def test_a_typed_book_gets_the_verdicts_of_single_loans(rows: list[dict[str, Any]]) -> None:
    columns = {}
    for field in MIXED.fields:
        values = [row[field.name] for row in rows]
        columns[field.name] = (
            pa.array(values, pa.float64())
            if field.is_number
            else pa.array([v and v.encode("utf-8", "surrogatepass") for v in values], pa.binary())
        )
    assert_same_verdicts(rows, read_loans(MIXED, part(**columns)))


@given(st.lists(records(), min_size=1, max_size=6))
def test_a_csv_book_gets_the_verdicts_of_single_loans(rows: list[dict[str, Any]]) -> None:
    columns = {}
    for field in MIXED.fields:
        cells = ["" if row[field.name] is None else str(row[field.name]) for row in rows]
        columns[field.name] = pa.array(
            [cell.encode("utf-8", "surrogatepass") for cell in cells], pa.binary()
        )
    assert_same_verdicts(rows, read_loans(MIXED, part(**columns)))


def test_typed_numbers() -> None:
    assert number_of(pa.array([1, None, 2**53 + 1])) == ([1.0, None, 2.0**53], [])
    assert number_of(pa.array([255], pa.uint8())) == ([255.0], [])
    assert number_of(pa.array([2**64 - 1], pa.uint64())) == ([2.0**64], [])
    assert number_of(pa.array([0.5, math.nan, math.inf])) == ([0.5, None], [(3, "inf")])
    assert number_of(pa.array([0.5], pa.float32())) == ([0.5], [])
    assert number_of(pa.array([decimal.Decimal("0.10")])) == ([0.1], [])
    assert number_of(pa.nulls(2)) == ([None, None], [])
    assert number_of(pa.array([0.5, 0.5]).dictionary_encode()) == ([0.5, 0.5], [])
    assert number_of(pa.array(["1", None, "x"], pa.string_view())) == ([1.0, None], [(3, "'x'")])


def test_a_value_that_is_not_a_number_is_shown_as_given() -> None:
    assert number_of(pa.array([True, None])) == ([None], [(1, "true")])
    assert number_of(pa.array([datetime.date(2024, 2, 1)])) == ([], [(1, "'2024-02-01'")])
    times = pa.array([0], pa.timestamp("ns", tz="Nowhere/Nothing"))
    assert [row for row, _ in number_of(times)[1]] == [1]
    assert number_of(pa.array([[1.0]])) == ([], [(1, "a value of type list<item: double>")])
    assert number_of(pa.array([b"13.06%", b"\xff", b"a\x00", b"x" * 99])) == (
        [],
        [
            (1, "'13.06%'"),
            (2, "b'\\xff'"),
            (3, "'a\\x00'"),
            (4, "'" + "x" * 59 + "… (99 characters)"),
        ],
    )


def test_typed_texts() -> None:
    assert text_of(pa.array(["x", "", None, " x"])) == (["x", None, None, " x"], [])
    assert text_of(pa.array(["x", None, "x"]).dictionary_encode()) == (["x", None, "x"], [])
    assert text_of(pa.array([7, None])) == (["7", None], [])
    assert text_of(pa.array([7.0, math.nan])) == (["7", None], [])
    assert text_of(pa.array([True, False])) == (["true", "false"], [])
    assert text_of(pa.array([decimal.Decimal("1.50")])) == (["1.50"], [])
    assert text_of(pa.array([datetime.date(2024, 2, 1)])) == (["2024-02-01"], [])
    durations = pa.array([datetime.timedelta(days=1), None])
    assert text_of(durations) == ([None], [(1, "a value of type duration[us]")])
    assert text_of(pa.array([["x"], None])) == ([None], [(1, "a value of type list<item: string>")])


def test_text_that_is_not_utf8_is_a_problem_of_its_value() -> None:
    cells = [b"ok", b"\xff", b"\xed\xa0\x80", b"a\x00b", b"NA", b""]
    for column in (pa.array(cells), pa.array(cells).cast(pa.binary_view())):
        values, problems = text_of(column)
        assert values == ["ok", "NA", None]
        assert problems == [(2, "b'\\xff'"), (3, "b'\\xed\\xa0\\x80'"), (4, "'a\\x00b'")]


def test_an_id_with_forbidden_characters_is_a_problem() -> None:
    batch = read_loans(
        MIXED,
        part(**{name: [value] * 3 for name, value in PLAIN.items()}, key=["a", "b\n", "c" * 201]),
    )
    expected = "text of 1 to 200 characters without control characters"
    assert [(p.loan, p.field, p.expected) for p in batch.problems] == [
        (2, "key", expected),
        (3, "key", expected),
    ]


def test_problems_are_sorted_by_row_and_field() -> None:
    batch = read_loans(
        MIXED,
        part(
            free=[1.0, 2.0, 3.0],
            rate=[0.5, 2.0, None],
            count=[1, 1, -1],
            town=["x", "y", None],
            grade=["A", "C", "B"],
            y=[0, 1, 2],
            key=[7, 8, 9],
        ),
        label=True,
    )
    assert [(p.loan, p.field, p.given) for p in batch.problems] == [
        (2, "rate", "2.0"),
        (2, "grade", "'C'"),
        (3, "rate", "nothing"),
        (3, "count", "-1"),
        (3, "y", "2"),
    ]
    assert batch.good.tolist() == [True, False, False]
    assert batch.loans.rows() == [(1.0, 0.5, 1.0, "x", "A")]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0]
    assert batch.ids == ["7"]
    assert dict(batch.missing) == {"free": 0, "rate": 1, "count": 0, "town": 1, "grade": 0}


@pytest.mark.parametrize(
    ("late", "on_time", "cells", "expected"),
    [
        ("1", "0", [b"1", b"0", b"1.0", b"2", b"", b"yes"], [1, 0, 1, None, None, None]),
        ("1", "0", [1.0, 0.0, 2.0, None, math.nan], [1, 0, None, None, None]),
        ("1", "0", [True, False, None], [1, 0, None]),
        ('"bad"', '"good"', [b"bad", b"good", b"Bad", b"\xff"], [1, 0, None, None]),
        ('"1"', '"0"', [1, 0], [1, 0]),
        ("true", "false", [b"True", b"false", b"1", b"0", b"x"], [1, 0, 1, 0, None]),
        ("true", "false", [True, False], [1, 0]),
    ],
)
def test_labels(late: str, on_time: str, cells: list[Any], expected: list[int | None]) -> None:
    definition = parse_definition(
        HEAD.replace("late = 1", f"late = {late}").replace("on_time = 0", f"on_time = {on_time}")
        + '[[field]]\nname = "x"\nkind = "category"\nlabel = "X"\n',
        "test",
    )
    batch = read_loans(definition, part(x=["a"] * len(cells), y=cells), label=True)
    assert batch.labels is not None
    assert batch.labels.tolist() == [label for label in expected if label is not None]
    assert [p.loan for p in batch.problems] == [
        row for row, label in enumerate(expected, 1) if label is None
    ]
    assert all("(late) or" in p.expected for p in batch.problems)


def test_labels_are_read_only_on_request() -> None:
    batch = read_loans(ONE_TEXT, part(x=["a"], y=["neither"]))
    assert batch.labels is None
    assert batch.ids is None
    assert batch.problems == []


def test_joined_batches_equal_the_loans_read_at_once() -> None:
    definition = parse_definition(
        HEAD + '[[field]]\nname = "x"\nkind = "category"\nlabel = "X"\nmissing = true\n'
        '[[field]]\nname = "n"\nkind = "number"\nlabel = "N"\n',
        "test",
    )
    rows: list[tuple[Any, ...]] = [("a", 1.0), ("b", 2.0), (None, 3.0), ("c", 4.0), ("b", 5.0)]
    pieces = [Loans.of(definition, rows[:2]), Loans.of(definition, rows[2:])]
    joined = join_loans(pieces)
    assert joined.rows() == rows
    assert joined.size == 5
    assert joined.texts("x").levels == ("a", "b", "c")


# --- Columns ---------------------------------------------------------------------------------


def columns_of(tmp_path: Path, header: str, definition: Definition, **options: bool) -> list[str]:
    path = tmp_path / "book.csv"
    path.write_text(f"{header}\n{header}\n", encoding="utf-8")
    return check_columns(definition, open_book(path), **options)


NAMES = ",".join(default_definition().names)


def test_columns_may_have_any_order(tmp_path: Path) -> None:
    reverse = ",".join(reversed(default_definition().names))
    assert columns_of(tmp_path, reverse, default_definition()) == []
    assert columns_of(tmp_path, f"{NAMES},is_late,loan_id", default_definition(), label=True) == []


@pytest.mark.parametrize(
    ("separator", "words"), [(";", "';'"), ("\t", "tabs"), ("|", r"'\|'"), (" ", "spaces")]
)
def test_another_separator_is_named(tmp_path: Path, separator: str, words: str) -> None:
    with pytest.raises(BookError, match=f"separated by {words}, expected ','"):
        columns_of(tmp_path, NAMES.replace(",", separator), default_definition())


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("12000,0.2,credit_card,A,1,B,2,0,3,RENT", "12000, 0.2, credit_card"),
        ("2024-01-01,x,5,y", "2024-01-01, x, 5"),
        ("1,2", "1, 2"),
        ("\x01,7,8", "'\\x01', 7, 8"),
    ],
)
def test_a_table_without_column_names_is_refused(tmp_path: Path, header: str, shown: str) -> None:
    with pytest.raises(BookError) as caught:
        columns_of(tmp_path, header, default_definition())
    assert str(caught.value) == (
        f"{tmp_path}/book.csv: expected a first line of column names, "
        f"got what looks like a row of values: {shown}, …"
    )


def test_some_numeric_names_are_accepted_as_column_names(tmp_path: Path) -> None:
    for header in ("a,b,c,d,2024", f"{NAMES.replace('grade', 'vote')},1,2,3,4,5,6,7,8"):
        with pytest.raises(BookError, match=r"expected the columns? .*grade"):
            columns_of(tmp_path, header, default_definition())


def test_all_missing_columns_are_named_with_suggestions(tmp_path: Path) -> None:
    header = NAMES.replace("int_rate", "Int_Rate ").replace("grade", "vote")
    with pytest.raises(BookError) as caught:
        columns_of(tmp_path, header, default_definition(), label=True)
    assert "int_rate (did you mean 'Int_Rate '?), grade, is_late, which are not there" in str(
        caught.value
    )


def test_an_absent_optional_column_is_noted_and_missing_in_every_row(tmp_path: Path) -> None:
    header = NAMES.replace("revol_util", "revolutil")
    notes = columns_of(tmp_path, header, default_definition())
    assert notes == [
        "there is no column revol_util: it counts as missing in every row "
        "(did you mean revolutil?)",
        "1 column that the loan definition does not name: revolutil",
    ]
    batch = read_loans(ONE_NUMBER, part(other=["a", "b"]))
    assert np.isnan(batch.loans.numbers("x")).tolist() == [True, True]


def test_extra_columns_are_noted(tmp_path: Path) -> None:
    notes = columns_of(tmp_path, f"{NAMES},,a b,'x\x01'", default_definition())
    assert notes == [
        "3 columns that the loan definition does not name: '', a b, \"'x\\x01'\"",
    ]


def titled(tmp_path: Path, lines: list[str]) -> str:
    path = tmp_path / "book.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BookError) as caught:
        check_columns(default_definition(), open_book(path))
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "above", [["Loans of March"], ["Loans,of March,,,,"], ["", "Report", "", "2026-03,EUR"]]
)
def test_column_names_below_other_lines_are_reported_with_their_line(
    tmp_path: Path, above: list[str]
) -> None:
    first = next(i for i, line in enumerate(above, 1) if line)
    line = len(above) + 1
    message = (
        f"expected the column names in line {first}, got them in line {line}: delete the lines"
    )
    assert titled(tmp_path, [*above, NAMES, "1,2"]) == f"{message} above them"
    assert titled(tmp_path, [*above, NAMES.replace(",", ";"), "1;2"]) == (
        f"{message} above them; the columns are separated by ';', expected ','"
    )


def test_a_row_with_some_column_names_is_not_a_header(tmp_path: Path) -> None:
    names = NAMES.split(",")
    message = titled(tmp_path, [",".join(names[1:]), f"{names[1]},{names[2]}"])
    assert message == f"expected the column {names[0]}, which is not there"


def test_a_second_byte_order_mark_is_shown_as_an_escape(tmp_path: Path) -> None:
    notes = columns_of(tmp_path, f"\ufeff\ufeffother,{NAMES}", default_definition())
    assert notes == ["1 column that the loan definition does not name: '\\ufeffother'"]


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        (pa.array([b"x", b"", None, b"\xff"]), ["x", None, None, b"\xff"]),
        (pa.array(["x", ""]), ["x", None]),
        (pa.array([True, None]), [True, None]),
        (pa.array([1.5, math.nan, None]), [1.5, None, None]),
        (pa.array([7, None]), [7, None]),
        (pa.array([decimal.Decimal("1.50")]), ["1.50"]),
        (pa.array([datetime.date(2026, 11, 25)]), ["2026-11-25"]),
        (pa.array([datetime.datetime(2026, 11, 25, 23, 59)]), ["2026-11-25"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([[1]]), ["a value of type list<item: int64>"]),
    ],
)
def test_cells_are_json_values(column: Any, cells: list[object]) -> None:
    records = pa.RecordBatch.from_arrays([column], ["c"])
    part = Part(records, np.arange(1, len(column) + 1), [])
    assert read_cells(part, "c") == cells
    assert read_cells(part, "another") == [None] * len(column)
