"""JSON lines, Arrow files and streams, and Parquet files put into one."""

from __future__ import annotations

import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import Book, BookError, check_book, draft_definition, open_book
from peerloan.book.formats import json_lines_reader
from peerloan.loan import Problem, default_definition, parse_definition
from peerloan.sample_data import SCHEMA, batches


def read(book: Book) -> tuple[list[tuple[int, dict[str, Any]]], list[Problem]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    problems: list[Problem] = []
    for part in book.parts():
        assert part.size <= 65_536
        assert part.records.schema.names == book.schema.names
        rows += zip(part.numbers.tolist(), part.records.to_pylist(), strict=True)
        problems += part.problems
    return rows, problems


def write(tmp_path: Path, data: bytes | str, name: str = "book.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BookError) as caught:
        read(open_book(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_every_format_of_one_table_is_checked_alike(tmp_path: Path) -> None:
    table = pa.Table.from_batches([*batches(300, 5, "calm")], SCHEMA)
    lines = "\n".join(json.dumps(row) for row in table.to_pylist())
    write(tmp_path, lines)
    write(tmp_path, gzip.compress(lines.encode()), "book.json.gz")
    write(tmp_path, lines, "book.csv")
    pyarrow.parquet.write_table(table, tmp_path / "book.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "book.feather", compression="zstd")
    with pa.ipc.new_file(tmp_path / "book.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=70)
    with pa.ipc.new_stream(tmp_path / "book", table.schema) as stream:
        stream.write_table(table)
    reports = []
    for path in sorted(tmp_path.iterdir()):
        book = open_book(path)
        assert book.schema.types == table.schema.types, path
        fractions: list[float] = []
        list(book.parts(fractions.append))
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
        report = check_book(book, default_definition()).to_json()
        reports.append({key: value for key, value in report.items() if key != "book"})
    assert len(reports) == 7
    assert all(report == reports[0] for report in reports)
    assert reports[0]["ok"]


def test_rows_of_json_that_are_none_keep_their_numbers(tmp_path: Path) -> None:
    lines = [
        '{"a": 1, "b": "x"}',
        "",
        '{"a": 2, "b": "y"',
        "[1, 2]",
        '{"a": 3, "b": "x", "a": 4}',
        " \t\r",
        '{"a": 5, "b": "\\ud83d"}',
        b'{"a": 6, "b": "\xe9"}',
        '{"a": ' + "[" * 100_000,
        '{"a": ' + "9" * 5_000 + "}",
        "null",
        '7 {"a": 1}',
        '{"b": "\\ud83d\\ude00"}',
    ]
    data = b"\n".join(line if isinstance(line, bytes) else str(line).encode() for line in lines)
    rows, problems = read(open_book(write(tmp_path, b"\xef\xbb\xbf" + data)))
    assert rows == [(1, {"a": 1, "b": "x"}), (11, {"a": None, "b": "\U0001f600"})]
    assert [problem.loan for problem in problems] == [*range(2, 11)]
    assert {(p.field, p.expected) for p in problems} == {
        ("(row)", "a JSON object with each key once")
    }
    assert [problem.given for problem in problems] == [
        "no JSON at character 18",
        "an array",
        'more than one "a"',
        "text that is not UTF-8",
        "text that is not UTF-8",
        "values nested too deep",
        "a number of thousands of digits",
        "null",
        "no JSON at character 3",
    ]


@pytest.mark.parametrize(
    ("values", "kind", "read_as"),
    [
        ("1 2", pa.int64(), [1, 2]),
        ("true null", pa.bool_(), [True, None]),
        ("1 0.5", pa.float64(), [1.0, 0.5]),
        ("9007199254740993 -9223372036854775808", pa.int64(), [2**53 + 1, -(2**63)]),
        ("9007199254740993.0 -9007199254740995.00", pa.int64(), [2**53 + 1, -(2**53) - 3]),
        ("1e300 9007199254740992.5", pa.float64(), [1e300, 2.0**53]),
        ("9007199254740993 0.5", pa.string(), ["9007199254740993", "0.5"]),
        ("18446744073709551615 1", pa.string(), ["18446744073709551615", "1"]),
        ('11 "11"', pa.string(), ["11", "11"]),
        ('true "true"', pa.string(), ["true", "true"]),
        ("true 1", pa.string(), ["true", "1"]),
        ("null null", pa.null(), [None, None]),
        ("Infinity 1", pa.float64(), [math.inf, 1.0]),
    ],
)
def test_a_column_of_json_holds_every_value_exactly(
    tmp_path: Path, values: str, kind: pa.DataType, read_as: list[object]
) -> None:
    first, second = values.split()
    book = open_book(write(tmp_path, f'{{"a": {first}}}\n{{"a": {second}}}\n'))
    assert book.schema.types == [kind]
    assert [row["a"] for _, row in read(book)[0]] == read_as


def test_many_sparse_keys_are_read_in_small_parts(tmp_path: Path) -> None:
    lines = [json.dumps({f"k{i % 9_000}": i}) for i in range(9_500)]
    book = open_book(write(tmp_path, "\n".join(lines)))
    assert len(book.columns) == 9_000
    assert next(iter(book.parts())).size < 500


def test_a_key_may_come_late_or_be_absent(tmp_path: Path) -> None:
    lines = ['{"a": 1}'] * 40_000 + ['{"b": "x"}']
    rows, _ = read(open_book(write(tmp_path, "\n".join(lines))))
    assert rows[0] == (1, {"a": 1, "b": None})
    assert rows[-1] == (40_001, {"a": None, "b": "x"})


def test_files_of_a_folder_share_their_keys(tmp_path: Path) -> None:
    write(tmp_path, '{"b": "x"}\n', "1.ndjson")
    write(tmp_path, '{"a": 1, "b": null}\n{"a": ', "2.jsonl")
    write(tmp_path, '{"a": 2}\n', "3.json")
    write(tmp_path, "", "4.jsonl")
    write(tmp_path, '{\n"a": 2}\n', "5.json")
    book = open_book(tmp_path)
    rows, problems = read(book)
    assert rows == [
        (1, {"b": "x", "a": None}),
        (2, {"b": None, "a": 1}),
        (4, {"b": None, "a": 2}),
    ]
    assert [problem.loan for problem in problems] == [3]
    assert book.notes == (
        "3 files were read",
        "skipped, since they have no rows: 4.jsonl",
        "skipped, since they are not a table by ending or content: 5.json",
    )


DEFINITION = """
model = "m"
[label]
column = "bad"
late = true
on_time = false
[[field]]
name = "grade"
kind = "category"
label = "Grade"
[[field]]
name = "rate"
kind = "number"
label = "Rate"
"""


def test_objects_and_arrays_are_wrong_values_of_a_field_alone(tmp_path: Path) -> None:
    definition = parse_definition(DEFINITION, "test")
    lines = [
        '{"grade": {"x": 1}, "rate": 0.5, "more": [1], "bad": true}',
        '{"grade": ["A"], "rate": 0.5, "more": {"x": 1}, "bad": false}',
    ]
    report = check_book(open_book(write(tmp_path, "\n".join(lines))), definition)
    (group,) = report.groups
    assert (group.field, group.count) == ("grade", 2)
    # Beside plain values the row is wrong, which alone can be told of a column of them.
    report = check_book(
        open_book(write(tmp_path, "\n".join([*lines, lines[0].replace('{"x": 1}', '"A"')]))),
        definition,
    )
    (group,) = report.groups
    assert (group.field, group.ranges, group.examples[0].given) == (
        "(row)",
        [(1, 2)],
        "an object in grade, where other rows have a plain value",
    )
    assert report.rows == 3


def test_a_definition_is_drafted_from_json(tmp_path: Path) -> None:
    lines = [
        json.dumps({"bad": i % 5 == 0, "rate": i % 7 / 10, "address": {"city": "x"}})
        for i in range(60)
    ]
    text = draft_definition(open_book(write(tmp_path, "\n".join([*lines, "x"]))), "bad")
    assert "1 row has no JSON object with each key once; training refuses them" in text
    assert parse_definition(text, "draft").label.late is True
    assert "# left out: address" in text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('[{"a": 1}, {"a": 2}]', "got a JSON array; put each object on a line: jq -c '.[]' FILE"),
        ('[\n  {\n "a": 1}]', "got a JSON array"),
        ('{\n  "a": 1\n}\n', "a JSON object over several lines; put each on one line: jq -c ."),
        ("{}\n{}\n", "row 1: expected a JSON object with each key once, got an object without"),
        ("a,b\n1,2\n", "row 1: expected a JSON object with each key once, got no JSON at char"),
        ('{"a": 1}\n'.encode("utf-16"), "got UTF-16 text"),
        (b"PK\x03\x04", "a ZIP archive"),
        (" \n\n", "got an empty file"),
        ('{"a": 1}\n{"a": "' + "x" * 5_000_000, "got a longer one after row 1"),
        (
            "\n".join(json.dumps({f"{i}-{j}": 1 for j in range(101)}) for i in range(100)),
            "expected at most 10,000 different keys",
        ),
        (gzip.compress(b'{"a": 1}\n' * 100_000)[:-20], "cut off"),
    ],
)
def test_a_file_that_is_not_json_lines_is_refused(
    tmp_path: Path, data: bytes | str, reason: str
) -> None:
    assert reason in refusal(write(tmp_path, data))


def test_json_lines_are_recognised_by_content_or_ending(tmp_path: Path) -> None:
    for name in ("book.csv", "book.txt", "book"):
        assert read(open_book(write(tmp_path, '\n{"a": 1}\n', name)))[0] == [(1, {"a": 1})]
        assert "a JSON array" in refusal(write(tmp_path, '[{"a": 1}]', name))


VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUE, min_size=1), min_size=1))
def test_output_of_json_dumps_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("json") / "book.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    read_rows, problems = read(open_book(path))
    assert not problems
    for (number, got), row in zip(read_rows, rows, strict=True):
        assert row == rows[number - 1]
        for key, value in got.items():
            expected = row.get(key)
            if isinstance(expected, float) and math.isnan(expected):
                assert value is None or value == "" or math.isnan(value)
            elif isinstance(value, str) and not isinstance(expected, str):
                # A column of several kinds is text; so is one of numbers that no type holds.
                assert value.lower() == str(expected).lower() or float(value) == expected
            else:
                assert value == expected


def test_json_lines_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines_reader, "PART_BYTES", 100)
    path = write(tmp_path, "\n".join(['{"a": 1}', "x"] * 50))
    sizes = [part.size for part in open_book(path).parts()]
    assert sum(sizes) == 100
    assert max(sizes) < 25


def stream_of(table: pa.Table, rows: int = 2) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def file_of(table: pa.Table, rows: int = 2) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


TABLE = pa.table({"a": [1, 2, -1, 0], "b": ["x", "y", None, "z"]})


@pytest.mark.parametrize("form", [stream_of, file_of])
def test_an_arrow_table_cut_anywhere_is_refused(tmp_path: Path, form: Any) -> None:
    data = form(TABLE)
    assert len(read(open_book(write(tmp_path, data, "whole")))[0]) == 4
    for kept in {*range(8, len(data), 5), *range(len(data) - 12, len(data))}:
        path = write(tmp_path, data[:kept], "cut")
        with pytest.raises(BookError, match=r"cut: .*(cut off|no row)"):
            read(open_book(path))


@pytest.mark.parametrize("form", [stream_of, file_of])
def test_concatenated_arrow_tables_are_refused(tmp_path: Path, form: Any) -> None:
    assert "bytes more behind its end" in refusal(write(tmp_path, form(TABLE) * 2, "two"))


def test_a_long_batch_of_arrow_is_read_in_parts(tmp_path: Path) -> None:
    table = pa.table({"a": range(150_000), "b": ["x"] * 150_000})
    rows, _ = read(open_book(write(tmp_path, stream_of(table, 150_000), "long")))
    assert [number for number, _ in rows] == [row["a"] + 1 for _, row in rows]


def test_arrow_categories_and_text_that_is_not_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"x", b"\xe9t\xe9"]).view(pa.string())
    table = pa.table({"a": bad, "b": pa.array(["u", "v"]).dictionary_encode()})
    report = check_book(
        open_book(write(tmp_path, stream_of(table), "book")),
        parse_definition(DEFINITION.replace("grade", "a").replace("rate", "b"), "test"),
    )
    assert [(g.field, g.count, g.examples[0].given) for g in report.groups] == [
        ("a", 1, "'été' (Windows-1252, not UTF-8)"),
        ("b", 2, "'u'"),
    ]


def test_categories_that_change_within_an_arrow_stream(tmp_path: Path) -> None:
    out = io.BytesIO()
    schema = pa.schema([("a", pa.dictionary(pa.int32(), pa.string()))])
    with pa.ipc.new_stream(out, schema) as writer:
        for texts in (["x", "y"], ["z", None, "x"]):
            column = pa.array(texts).dictionary_encode()
            writer.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))
    rows, _ = read(open_book(write(tmp_path, out.getvalue(), "book")))
    assert [row["a"] for _, row in rows] == ["x", "y", "z", None, "x"]


@given(place=st.integers(8, 400), byte=st.integers(0, 255))
def test_a_damaged_arrow_table_does_not_crash_the_process(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    data = bytearray(stream_of(TABLE))
    data[place] = byte
    path = write(tmp_path_factory.mktemp("arrow"), bytes(data), "book")
    try:
        read(open_book(path))
    except (BookError, UnicodeDecodeError):
        return


def test_concatenated_parquet_files_are_refused(tmp_path: Path) -> None:
    def parquet(rows: int, **options: Any) -> bytes:
        out = io.BytesIO()
        pyarrow.parquet.write_table(pa.table({"a": range(rows)}), out, **options)
        return out.getvalue()

    plain = {"compression": "none", "use_dictionary": False}
    for first, second in ((9, 9), (5, 5_000), (5_000, 5)):
        for options in (plain, {"write_page_index": True}, {"row_group_size": 100}):
            one, two = parquet(first, **options), parquet(second, **options)
            assert len(read(open_book(write(tmp_path, two, "one")))[0]) == second
            assert "got several put into one" in refusal(write(tmp_path, one + two, "two"))
