"""Opening and reading books: formats, exact row numbers, and one-line errors of bad files."""

from __future__ import annotations

import csv
import gzip
import io
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import Book, BookError, Part, open_book
from peerloan.book.formats import csv_reader
from peerloan.loan import Problem

Rows = list[tuple[int, tuple[object, ...]]]


def read(book: Book) -> tuple[Rows, list[Problem]]:
    rows: Rows = []
    problems: list[Problem] = []
    for part in book.parts():
        assert part.size == part.records.num_rows + len(part.problems)
        values = zip(*(column.to_pylist() for column in part.records.columns), strict=True)
        rows += zip(part.numbers.tolist(), values, strict=True)
        problems += part.problems
    return rows, problems


def read_bytes(tmp_path: Path, data: bytes, name: str = "book.csv") -> tuple[Rows, list[Problem]]:
    path = tmp_path / name
    path.write_bytes(data)
    return read(open_book(path))


def notes_of(tmp_path: Path, data: bytes, name: str = "book.csv") -> tuple[str, ...]:
    path = tmp_path / name
    path.write_bytes(data)
    return open_book(path).notes


def refusal(tmp_path: Path, data: bytes, name: str = "book.csv") -> str:
    with pytest.raises(BookError) as caught:
        read_bytes(tmp_path, data, name)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name))
    assert "\n" not in message
    return message


def test_a_plain_csv_is_read_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "book.csv").write_bytes(b"a,b\n1,x\n2,y\n")
    book = open_book(tmp_path / "book.csv")
    assert book.columns == ("a", "b")
    assert book.name == str(tmp_path / "book.csv")
    assert book.bytes_total == 12
    assert read(book) == ([(1, (b"1", b"x")), (2, (b"2", b"y"))], [])
    assert read(book)[0], "a book can be read again"


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends_do_not_matter(
    tmp_path: Path, bom: bytes, newline: bytes
) -> None:
    lines = [b"a,b", b"1,x", b"", b"2,y"]
    rows, problems = read_bytes(tmp_path, bom + newline.join(lines))
    assert rows == [(1, (b"1", b"x")), (2, (b"2", b"y"))]
    assert problems == []


def test_gzip_is_recognised_by_its_content(tmp_path: Path) -> None:
    data = gzip.compress(b"a,b\n1,x\n")
    assert read_bytes(tmp_path, data, "book.csv")[0] == [(1, (b"1", b"x"))]


def test_parquet_is_recognised_by_its_content_and_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([1, None]), "b": pa.array(["x", "y"]).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "book.csv")
    book = open_book(tmp_path / "book.csv")
    assert book.schema.types == table.schema.types
    assert read(book)[0] == [(1, (1, "x")), (2, (None, "y"))]


def test_rows_with_other_cell_counts_are_problems_and_still_count(tmp_path: Path) -> None:
    rows, problems = read_bytes(tmp_path, b'a,b\n1,x\n2\n\n"3\n3",y\n4,y,z\n5,z\n\xff\n')
    assert [number for number, _ in rows] == [1, 3, 5]
    assert problems == [
        Problem(2, "(row)", "2 cells", "1 cell"),
        Problem(4, "(row)", "2 cells", "3 cells"),
        Problem(6, "(row)", "2 cells", "1 cell"),
    ]


def test_wrong_rows_far_into_a_long_book_keep_their_numbers(tmp_path: Path) -> None:
    lines = [b"%d,%s" % (i, b"x" * 20) for i in range(1, 400_001)]
    for number in (65_536, 65_537, 200_000, 400_000):
        lines[number - 1] = b"\xe4,,"
    rows, problems = read_bytes(tmp_path, b"a,b\n" + b"\n".join(lines))
    assert [p.loan for p in problems] == [65_536, 65_537, 200_000, 400_000]
    assert all(int(str(a, "ascii")) == number for number, (a, _) in rows)  # type: ignore[call-overload]
    assert len(rows) == 399_996


@pytest.mark.longer
def test_a_book_of_broken_rows_only_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(b"a,b\n" + b"1\n" * 200_000 + b"1,2\n" + b"1\n" * 200_000)
    parts = list(open_book(path).parts())
    assert max(part.size for part in parts) < 140_000
    assert [p.loan for part in parts for p in part.problems] == [
        *range(1, 200_001),
        *range(200_002, 400_002),
    ]
    assert [number for part in parts for number in part.numbers] == [200_001]


@pytest.mark.parametrize("after", [b"3,y\n", b"3\n", b"\x04,,\n", b""])
def test_a_row_like_the_readers_own_end_mark_is_a_wrong_row(tmp_path: Path, after: bytes) -> None:
    rows, problems = read_bytes(tmp_path, b"a,b\n1,x\n\x04,,\n" + after)
    assert rows == [(1, (b"1", b"x")), *([(3, (b"3", b"y"))] if after == b"3,y\n" else [])]
    assert problems[0] == Problem(2, "(row)", "2 cells", "3 cells")
    assert len(rows) + len(problems) == 2 + bool(after)


@pytest.mark.parametrize("row", [b'3,"y\n', b'"3,y\n', b'3,4,"y\n'])
def test_a_row_like_the_end_mark_does_not_hide_an_open_quotation(
    tmp_path: Path, row: bytes
) -> None:
    message = refusal(tmp_path, b"a,b\n1,x\n\x04,,\n" + row)
    assert "a quoted value in row 3 runs to the end" in message


def test_any_bytes_are_read_unchanged(tmp_path: Path) -> None:
    value = b"\x00\xff \xed\xa0\x80\xc3\xa4\x1a"
    rows, _ = read_bytes(tmp_path, b"a,b\n" + value + b",1\n")
    assert rows == [(1, (value, b"1"))]


CELL = st.text(st.sampled_from('ab ",\r\nä\x00'), max_size=4)


@given(st.lists(st.lists(CELL, min_size=1, max_size=3), max_size=6))
def test_output_of_a_csv_writer_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b"], *rows, ["end", "end"]])
    given_rows = [tuple(cell.encode() for cell in row) for row in [*rows, ["end", "end"]]]
    path = tmp_path_factory.mktemp("csv")
    read_rows, problems = read_bytes(path, text.getvalue().encode())
    assert read_rows == [(i, row) for i, row in enumerate(given_rows, 1) if len(row) == 2]
    assert [p.loan for p in problems] == [i for i, row in enumerate(given_rows, 1) if len(row) != 2]


@given(st.text(st.sampled_from('ab1,,\n\r" ä'), max_size=40))
def test_any_text_is_read_as_the_csv_module_reads_it(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("csv")
    # A first row of two cells shows how wide the table is.
    text = f"0,0\n{text}"
    data = b"a,b\n" + text.encode()
    expected = [row for row in csv.reader(io.StringIO(text + "\nend", newline="")) if row]
    if expected.pop() != ["end"]:
        # The csv module says nothing of a quotation that is open at the end.
        assert "quotation mark" in refusal(path, data)
        return
    # Rows of commas alone at the end hold nothing.
    lines = [line for line in re.split("[\r\n]", text) if line]
    while lines and not lines.pop().strip(","):
        expected.pop()
    rows, problems = read_bytes(path, data)
    assert [tuple(cell.decode() for cell in row) for _, row in rows] == [  # type: ignore[attr-defined]
        tuple(row) for row in expected if len(row) == 2
    ]
    assert len(problems) == sum(len(row) != 2 for row in expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "got an empty file"),
        (b"\xef\xbb\xbf\r\n\n", "got an empty file"),
        (b"a,b\n", "got column names and no row"),
        (b"a,b\n\n\r\n", "got column names and no row"),
        (b"PK\x03\x04...", "an Excel workbook"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("a,b\n1,2\n".encode("utf-32"), "got UTF-32 text"),
        ("a,b\n1,2\n".encode("utf-16-le"), "got UTF-16LE text; convert it: iconv -f UTF-16LE -t"),
        ("größe,b\n1,ß\n".encode("utf-16-be"), "got UTF-16BE text"),
        ("a,b\n1,2\n".encode("utf-32-le"), "got UTF-32LE text"),
        (bytes(range(256)) * 9, "expected CSV (UTF-8), JSON lines, Parquet or Arrow, got b'"),
        (
            "a,größe\n1,2\n".encode("cp1252"),
            "expected column names in UTF-8, got 'größe' (Windows-1252, not UTF-8) in column 2 of "
            "line 1; if that reads well, convert it: iconv -f WINDOWS-1252 -t UTF-8",
        ),
        (
            "größe,".encode() + b"\xe4\n1,2\n",
            "got b'\\xe4' in column 2 of line 1; convert it to UTF-8",
        ),
        (b"a,b,a,c,c\n1,2,3,4,5\n", "got more than one a, c"),
        (
            b"12000,0.2,A,0.2\n13000,0.1,B,0.3\n",
            "expected a first line of column names, got what looks like a row of values: "
            "12000, 0.2, A, …",
        ),
        (b'"a,b\n1,2\n3,4\n', "expected a closing quotation mark in the column names"),
        (b'"' + b"x" * 200_000 + b'",b\n1,2\n', "expected a line of column names"),
        (b'a,b\n1,"2\n3,4\n', "a quoted value in row 1 runs to the end"),
        (b'a,b\n1,2\n"2\n3,4\n', "a quoted value in row 2 runs to the end"),
        (b'a,b\n1,2\n"' + b"3,4\n" * 3_000_000, "expected rows of at most 4 MB"),
        (b"PAR1" + bytes(100), "expected a whole Parquet file"),
        (b"PAR1", "expected a whole Parquet file"),
    ],
)
def test_a_file_that_is_not_a_book_is_refused_in_one_line(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    assert reason in refusal(tmp_path, data)


def test_a_separator_line_that_names_commas_is_skipped(tmp_path: Path) -> None:
    for line in (b"sep=,\r\n", b'"sep=,"\n', b"\xef\xbb\xbfSEP=,,,,\n"):
        data = line + b"a,b\n1,x\n"
        assert read_bytes(tmp_path, data) == ([(1, (b"1", b"x"))], [])
        assert notes_of(tmp_path, data) == (
            "the first line, sep=, names the separator and was skipped",
        )


@pytest.mark.parametrize(
    ("line", "words"), [(b"sep=;", "';'"), (b"sep=\t", "tabs"), (b'"sep=|"', "'|'")]
)
def test_a_separator_line_that_names_another_separator_is_refused(
    tmp_path: Path, line: bytes, words: str
) -> None:
    message = refusal(tmp_path, line + b"\r\na;b\r\n1;x\r\n")
    assert f"expected columns separated by ',', got {words} in the first line, sep=" in message


@pytest.mark.parametrize("name", ["book.csv", "book.csv.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_columns_and_rows_of_commas_only_are_skipped(
    tmp_path: Path, name: str, newline: str, end: str
) -> None:
    lines = ["a,b,, ,", "1,x,,,", ",,,,", "2,,,,", ",,,,", "", ",,,,", ",,"]
    data = (newline.join(lines) + end.replace("\n", newline)).encode()
    packed = gzip.compress(data) if name.endswith(".gz") else data
    rows, problems = read_bytes(tmp_path, packed, name)
    assert (rows, problems) == ([(1, (b"1", b"x")), (2, (b"", b"")), (3, (b"2", b""))], [])
    assert notes_of(tmp_path, packed, name) == (
        "3 columns without a name skipped: a row with a value there is refused",
        "3 rows without any value at the end skipped",
    )


@pytest.mark.parametrize("header", [",,a,b", ",a,,b", ",a,b,"])
def test_beside_a_first_column_without_a_name_others_are_skipped(
    tmp_path: Path, header: str
) -> None:
    cells = iter("1x")
    row = ",".join(next(cells) if name else "" for name in header.split(","))
    rows, problems = read_bytes(tmp_path, f"{header}\n{row}\n".encode())
    assert (rows, problems) == ([(1, (b"", b"1", b"x"))], [])
    assert notes_of(tmp_path, f"{header}\n{row}\n".encode()) == (
        "1 column without a name skipped: a row with a value there is refused",
    )


def test_a_value_in_a_column_without_a_name_is_a_wrong_row(tmp_path: Path) -> None:
    rows, problems = read_bytes(tmp_path, b'a,b,,\n1,x,,\n2,y,,z\n3,z\n4,"x\n,",u,v\n5,x,,\n')
    assert rows == [(1, (b"1", b"x")), (5, (b"5", b"x"))]
    assert problems == [
        Problem(2, "(row)", "4 cells", "a value in column 4, which has no name"),
        Problem(3, "(row)", "4 cells", "2 cells"),
        Problem(4, "(row)", "4 cells", "a value in column 3, which has no name"),
    ]


@pytest.mark.parametrize("header", ["a,b", "a,b,", "a,b,,,"])
@pytest.mark.parametrize("end", ["", ",", ",,"])
def test_header_and_rows_may_end_with_other_numbers_of_commas(
    tmp_path: Path, header: str, end: str
) -> None:
    data = f"{header}\n1,x{end}\n2,y{end}\n".encode()
    assert read_bytes(tmp_path, data) == ([(1, (b"1", b"x")), (2, (b"2", b"y"))], [])
    count = len(end)
    assert [note.split(" without")[0] for note in notes_of(tmp_path, data)] == (
        [f"{count} column{'s' * (count > 1)}"] if count else []
    )


def test_rows_of_different_or_larger_width_are_broken(tmp_path: Path) -> None:
    for more in (b"1,x,\n2,y\n", b"1,x,z\n2,y,\n", b"1\n2\n"):
        _, problems = read_bytes(tmp_path, b"a,b\n" + more)
        assert problems


def test_a_first_column_without_a_name_is_read(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b'"",a\n1,x\n')[0] == [(1, (b"1", b"x"))]
    assert notes_of(tmp_path, b",a\n1,x\n") == ()


def test_quoted_lines_of_commas_are_a_value(tmp_path: Path) -> None:
    rows, _ = read_bytes(tmp_path, b'a,b\n1,"x\n,\n,"\n,\n')
    assert rows == [(1, (b"1", b"x\n,\n,"))]
    assert "a quoted value in row 1 runs to the end" in refusal(tmp_path, b'a,b\n1,"x\n,\n,\n')


def test_rows_of_commas_only_are_not_loans(tmp_path: Path) -> None:
    assert "got column names and no row" in refusal(tmp_path, b"a,b\n" + b",\n" * 300_000)
    data = b"a,b\n1,x\n" + b",\r\n" * 300_000
    assert read_bytes(tmp_path, data)[0] == [(1, (b"1", b"x"))]
    assert notes_of(tmp_path, data) == ("300,000 rows without any value at the end skipped",)


def test_a_value_in_another_encoding_is_noted_with_its_place(tmp_path: Path) -> None:
    data = "a,b\n1,x\n\n2,réparé\n".encode("cp1252")
    assert notes_of(tmp_path, data) == (
        "row 2, column b, is not UTF-8: 'réparé' (Windows-1252, not UTF-8); it is a wrong "
        "value in a field, unchanged in other columns; if that reads well, convert it: "
        "iconv -f WINDOWS-1252 -t UTF-8",
    )
    # One letter is cut: the rest is UTF-8, and no other encoding.
    (note,) = notes_of(tmp_path, "a,b\n1,rép".encode() + b"\xc3\n")
    assert note.endswith("convert it to UTF-8")
    assert notes_of(tmp_path, "a,b\n1,réparé\n".encode()) == ()


def test_all_members_of_a_gzip_file_are_read(tmp_path: Path) -> None:
    data = gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n") + bytes(100)
    assert len(read_bytes(tmp_path, data)[0]) == 2
    assert "damaged" in refusal(tmp_path, data + b"more")


@pytest.mark.parametrize("kept", [5, 30, -200, -9, -1])
def test_a_cut_gzip_file_is_refused(tmp_path: Path, kept: int) -> None:
    data = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(20_000)))
    assert "cut off" in refusal(tmp_path, data[:kept], "book.csv.gz")


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"a,b\n" + bytes(range(48, 58)) * 1000))
    data[20:24] = b"\xff\xff\xff\xff"
    assert "damaged" in refusal(tmp_path, bytes(data), "book.csv.gz")


def test_a_cut_or_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    out = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"a": list(range(10_000))}), out)
    data = out.getvalue().to_pybytes()
    assert "Parquet" in refusal(tmp_path, data[:-20], "book.parquet")
    assert "Parquet" in refusal(tmp_path, data[:4] + b"\xff" * 400 + data[404:], "book.parquet")


def test_row_numbers_continue_across_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "2.csv").write_bytes(b"b,a\ny,2\n3\n")
    (tmp_path / "1.csv.gz").write_bytes(gzip.compress(b"a,b\n1,x\n"))
    (tmp_path / "3.csv").write_bytes(b"a,b\n4,z\n")
    (tmp_path / ".4.csv").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_bytes(b"no table")
    fractions: list[float] = []
    for book in (open_book(tmp_path), open_book(f"{tmp_path}/[0-9]*.csv*")):
        assert [path.name for path in book.paths] == ["1.csv.gz", "2.csv", "3.csv"]
        rows, problems = read(book)
        assert rows == [(1, (b"1", b"x")), (2, (b"2", b"y")), (4, (b"4", b"z"))]
        assert [p.loan for p in problems] == [3]
        list(book.parts(fractions.append))
        assert fractions == sorted(fractions)
        assert fractions.pop() == 1
        fractions.clear()


def test_parquet_files_of_a_folder_may_differ_in_the_size_of_numbers(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"a": pa.array([1])}), tmp_path / "1.parquet")
    pyarrow.parquet.write_table(pa.table({"a": pa.array([0.5])}), tmp_path / "2.parquet")
    assert read(open_book(tmp_path))[0] == [(1, (1.0,)), (2, (0.5,))]


def test_files_with_different_columns_or_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(b"a,b\n1,x\n")
    (tmp_path / "2.csv").write_bytes(b"a,c\n1,x\n")
    with pytest.raises(BookError, match=r"2\.csv: expected .*1\.csv, got no b, also c"):
        open_book(tmp_path)
    (tmp_path / "2.csv").unlink()
    pyarrow.parquet.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "2.parquet")
    with pytest.raises(BookError) as caught:
        open_book(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/2.parquet: expected CSV, the format of {tmp_path}/1.csv, got Parquet: "
        "a book has one format"
    )
    pyarrow.parquet.write_table(pa.table({"a": ["x"], "b": [2]}), tmp_path / "3.parquet")
    with pytest.raises(BookError, match=r"3\.parquet: column a: .*int64, .*2\.parquet, got string"):
        open_book(f"{tmp_path}/*.parquet")


def test_a_second_byte_order_mark_is_shown_where_the_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(b"a,b\n1,x\n")
    (tmp_path / "2.csv").write_bytes(b"\xef\xbb\xbf" * 2 + b"a,b\n1,x\n")
    with pytest.raises(BookError, match=r"2\.csv: .* got no a, also '\\ufeffa'$"):
        open_book(tmp_path)


@pytest.mark.parametrize("spec", ["nothing.csv", "*.csv", "a\0b", "", "x" * 5000])
def test_a_path_without_a_file_is_refused(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BookError):
        open_book(spec)


def test_an_empty_book_name_is_refused_as_empty() -> None:
    with pytest.raises(BookError, match="expected a file, a folder or a glob, got an empty name"):
        open_book("")


@pytest.mark.parametrize(
    "left", ["at the end", "after a part", "at a fault", "at a long row", "at a quote", "where cut"]
)
def test_every_block_is_released_when_reading_ends(
    tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = []

    class Watched(csv_reader.Feed):
        def wait_for_release(self) -> None:
            super().wait_for_release()
            feeds.append((self, self.still_lent()))

    monkeypatch.setattr(csv_reader, "Feed", Watched)
    path = tmp_path / "book.csv"
    content = b"a,b\n" + "1,ü\n".encode() * 3_000_000
    if left == "at a fault":
        content += b'"'
    elif left == "at a long row":
        content += b"1," + b"x" * 9_000_000 + b"\n"
    elif left == "at a quote":  # in the first block already
        content = b'a,b\n1,"x\n' + content
    elif left == "where cut":
        content = gzip.compress(content)
    path.write_bytes(content)
    book = open_book(path)
    if left == "where cut":  # after it was opened, which sees that it is whole
        path.write_bytes(content[:-9_000])
    parts = cast("Generator[Part, None, None]", book.parts())
    if left == "after a part":
        next(parts)
        parts.close()
    elif left == "at the end":
        assert sum(part.size for part in parts) == 3_000_000
    else:
        with pytest.raises(BookError, match="cut off" if left == "where cut" else "quotation mark"):
            list(parts)
    ((feed, still_lent),) = feeds
    assert feed.positions
    assert still_lent == []


@pytest.mark.parametrize("read", ["list(parts)", "next(parts)", "next(parts); parts.close()"])
def test_a_process_that_exits_while_reading_does_not_crash(tmp_path: Path, read: str) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(b"a,b\n" + b"1,x\n" * 1_500_000)
    code = (
        "import sys; from peerloan.book import open_book; "
        f"parts = open_book(sys.argv[1]).parts(); {read}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_only_one_part_is_in_memory_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 300_000)
    sizes = [part.records.num_rows for part in open_book(path).parts()]
    assert sum(sizes) == 300_000
    assert max(sizes) <= 65_536
