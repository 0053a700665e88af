"""Limits of books: compressed and other small files that would expand to huge tables."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from peerloan.book import BookError, open_book
from peerloan.book import parts as book_parts
from peerloan.book.parts import MOST_COLUMNS, PART_ROWS
from peerloan.book.quality import check_report, doubts
from peerloan.loan import parse_definition

COLUMNS = [f"c{i}" for i in range(MOST_COLUMNS + 1)]
TABLE = pa.table({name: pa.array([1], pa.int8()) for name in COLUMNS})


def csv_of(names: list[str]) -> bytes:
    return ",".join(names).encode() + b"\n" + b",".join(b"1" for _ in names) + b"\n"


def parquet_file() -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(TABLE, out)
    return out.getvalue()


def arrow_stream() -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return out.getvalue()


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(BookError) as caught:
        for _ in open_book(path).parts():
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("make", [lambda: csv_of(COLUMNS), parquet_file, arrow_stream])
def test_a_table_of_too_many_columns_is_refused(tmp_path: Path, make: object) -> None:
    assert callable(make)
    assert refusal(tmp_path / "book", make()) == (
        "expected at most 10,000 columns, got 10,001: a table of loans has a row for each loan"
    )


def test_a_table_with_the_most_allowed_columns_is_read(tmp_path: Path) -> None:
    (tmp_path / "book.csv").write_bytes(csv_of(COLUMNS[:-1]))
    assert len(open_book(tmp_path / "book.csv").columns) == MOST_COLUMNS


def test_columns_without_a_name_count_too(tmp_path: Path) -> None:
    content = b"a,b" + b"," * 500_000 + b"\n1,2\n"
    assert "expected at most 10,000 columns, got 500,002" in refusal(tmp_path / "a", content)
    # The header is padded to the width of its rows.
    content = b"a,b\n1,2" + b"," * 20_000 + b"\n"
    assert "expected at most 10,000 columns, got 20,002" in refusal(tmp_path / "b", content)


@pytest.mark.parametrize("what", [b",", b"a,", b"abc,"])
def test_a_header_without_an_end_is_refused(tmp_path: Path, what: bytes) -> None:
    content = gzip.compress(what * (4 << 20), 9)
    message = refusal(tmp_path / "book.csv.gz", content)
    assert message.startswith("expected a line of column names of less than 1 MB, got a longer one")


@pytest.mark.parametrize("before", [b"", b"1,2,3\n"])
@pytest.mark.parametrize("what", [b",", b"a", b"\0", b'"",'])
def test_a_row_without_an_end_is_refused(tmp_path: Path, before: bytes, what: bytes) -> None:
    content = gzip.compress(b"a,b,c\n" + before + what * (16 << 20) + b"x\n", 9)
    message = refusal(tmp_path / "book.csv.gz", content)
    assert message.startswith("expected rows of at most 4 MB, got a longer one after row ")


@pytest.fixture
def few_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit of broken rows: reading a million rows would take seconds."""
    monkeypatch.setattr(book_parts, "MOST_BROKEN", 5_000)


@pytest.mark.usefixtures("few_broken")
def test_a_file_of_broken_rows_is_refused_early(tmp_path: Path) -> None:
    content = gzip.compress(b"a,b,c\n1,2,3\n" + b"1\n" * 5_000_000, 9)
    assert refusal(tmp_path / "book.csv.gz", content) == (
        "expected rows of 3 cells, as the header has, got another number in 5,000 of the first "
        "5,001 rows, such as 1 cell in row 2: is the header that of another table?"
    )


@pytest.mark.usefixtures("few_broken")
def test_a_few_good_rows_do_not_prevent_the_refusal(tmp_path: Path) -> None:
    content = gzip.compress(b"a,b,c\n" + (b"1,2,3\n" + b"1\n" * 20) * 100_000, 9)
    assert "got another number in 5,000 of the first 5,250 rows" in refusal(tmp_path / "b", content)


@pytest.mark.usefixtures("few_broken")
def test_a_table_with_many_wrong_rows_and_some_good_ones_is_read(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(b"a,b,c\n" + (b"1,2,3\n" + b"1\n" * 8) * 3_000)
    parts = list(open_book(path).parts())
    assert sum(len(part.problems) for part in parts) == 24_000
    assert sum(part.records.num_rows for part in parts) == 3_000


@pytest.mark.usefixtures("few_broken")
def test_lines_that_are_no_objects_end_the_reading(tmp_path: Path) -> None:
    content = gzip.compress(b'{"a": 1}\n' + b"1\n" * 5_000_000, 9)
    assert refusal(tmp_path / "book.jsonl.gz", content) == (
        "expected a JSON object with each key once a line, got none in 5,000 of the first 5,001 "
        "rows, such as the value 1 alone in row 5001"
    )


def test_wrong_rows_are_let_go_of_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(b"a,b\n" + b"1\n" * 140_000)
    sizes = [part.size for part in open_book(path).parts()]
    assert sum(sizes) == 140_000
    assert max(sizes) == book_parts.PART_ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ' + b"[" * 2_000_000 + b"\n", "nested too deep"),
        (b'{"a": "' + b"x" * (5 << 20) + b'"}\n', "expected rows of at most 4 MB"),
        (b'{"a": 1' + b"0" * 100_000 + b"}\n", "a number of thousands of digits"),
        (
            b"{" + b",".join(b'"k%d":1' % i for i in range(10_001)) + b"}\n",
            "expected at most 10,000 different keys, got more",
        ),
    ],
)
def test_a_line_of_json_beyond_every_bound_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    assert message in refusal(tmp_path / "book.jsonl", content)


@pytest.mark.parametrize("name", ["book.parquet", "book.arrow"])
def test_a_part_of_many_columns_has_fewer_rows(tmp_path: Path, name: str) -> None:
    columns = pa.table({name: pa.nulls(9_000) for name in COLUMNS[:5_000]})
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(columns, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, columns.schema) as writer:
            writer.write_table(columns)
    sizes = [part.size for part in open_book(tmp_path / name).parts()]
    assert sum(sizes) == 9_000
    assert max(sizes) <= (1 << 24) // 5_000


NARROW = parse_definition(
    'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n'
    '[[field]]\nname = "n"\nkind = "number"\nlabel = "N"\n',
    "test",
)


def test_ranges_of_very_many_wrong_rows_are_limited_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_report, "MOST_RANGES", 1_000)
    path = tmp_path / "book.csv"
    path.write_bytes(b"n,y\n" + b"1,0\nx,1\n" * 100_000)
    report = check_report.check_book(open_book(path), NARROW)
    (group,) = report.groups
    assert (group.count, report.bad_rows) == (100_000, 100_000)
    assert group.ranges[:2] == [(2, 2), (4, 4)]
    assert len(group.ranges) <= PART_ROWS
    assert any(line.endswith(f" and {100_000 - 20 - 200:,} more rows") for line in report.lines())


def test_only_the_first_of_very_many_rows_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubts, "MOST_COMPARED", 1_000)
    fields = [f'[[field]]\nname = "c{k}"\nkind = "number"\nlabel = "C"\n' for k in range(4)]
    head = 'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n'
    definition = parse_definition(head + "".join(fields), "test")
    lines = [f"{i % 5 == 0:d},{i},{i * 7 % 997},{i * 13 % 991},{i * 3}\n" for i in range(40_000)]
    path = tmp_path / "book.csv"
    path.write_text("y,c0,c1,c2,c3\n" + "".join([*lines, *lines, *lines]), "utf-8")
    (part, *_) = open_book(path).parts()
    texts = check_report.check_book(open_book(path), definition).doubts
    (doubt,) = (text for text in texts if "equal an earlier one" in text)
    assert doubt.startswith(f"of the first {part.size:,} rows, {part.size - 40_000:,} of ")
