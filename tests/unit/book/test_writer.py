"""A book is written completely or not at all, reads back unchanged, and has one fingerprint."""

from __future__ import annotations

import errno
import gzip
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import (
    BookError,
    Fingerprint,
    escape_formula,
    open_book,
    open_writer,
    read_loans,
)
from peerloan.loan import Loans, TextColumn, parse_definition
from peerloan.loan.spelling import plain, text_of

DEFINITION = parse_definition(
    'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n'
    '[[field]]\nname = "n"\nkind = "number"\nlabel = "N"\nmissing = true\n'
    '[[field]]\nname = "t"\nkind = "category"\nlabel = "T"\nmissing = true\n',
    "test",
)


def write(path: Path, records: pa.RecordBatch, **options: bool) -> None:
    with open_writer(path, records.schema, **options) as writer:
        writer.write(records)


def cells(path: Path) -> list[list[bytes]]:
    """The columns of a CSV as raw cells."""
    parts = list(open_book(path).parts())
    assert not any(part.problems for part in parts)
    table = pa.Table.from_batches([part.records for part in parts])
    return [column.to_pylist() for column in table.columns]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_doubles_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "out.csv"
    write(path, pa.RecordBatch.from_pydict({"n": pa.array(numbers), "y": ["0"] * len(numbers)}))
    (part,) = open_book(path).parts()
    assert read_loans(DEFINITION, part).loans.numbers("n").tobytes() == np.array(numbers).tobytes()


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b'"', b",", b"\r\n", b" x ", b'a"b,"'])))
def test_bytes_are_written_verbatim(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes]
) -> None:
    values = [*values, b"end"]
    folder = tmp_path_factory.mktemp("csv")
    records = pa.RecordBatch.from_pydict({"a": values, "b": values})
    for name in ("out.csv", "out.csv.gz"):
        write(folder / name, records)
        assert cells(folder / name) == [values, values]
    # a slice writes its own rows alone, and a single column loses no empty row
    write(folder / "slice.csv", records.slice(len(values) - 1))
    assert cells(folder / "slice.csv") == [[b"end"], [b"end"]]
    write(folder / "one.csv", records.select(["a"]))
    assert cells(folder / "one.csv") == [values]


def test_csv_quotes_only_where_needed(tmp_path: Path) -> None:
    records = pa.RecordBatch.from_pydict(
        {
            "a,b": pa.array(["x", 'say "x"', None], pa.string()),
            "n": pa.array([0.1, math.nan, None]),
            "f": pa.array([True, False, None]),
            "i": pa.array([2**62, -1, None]),
            "d": pa.array(["u", "v,w", None]).dictionary_encode(),
        }
    )
    write(tmp_path / "out.csv", records)
    assert (tmp_path / "out.csv").read_text() == (
        '"a,b",n,f,i,d\nx,0.1,true,4611686018427387904,u\n"say ""x""",,false,-1,"v,w"\n,,,,\n'
    )


def test_several_batches_make_one_file(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1, 2]})
    for name in ("out.csv", "out.CSV.gz", "out.parquet"):
        with open_writer(tmp_path / name, batch.schema) as writer:
            writer.write(batch)
            writer.write(batch.slice(0, 0))
            writer.write(batch)
        assert sum(part.size for part in open_book(tmp_path / name).parts()) == 4
    assert gzip.decompress((tmp_path / "out.CSV.gz").read_bytes()) == b"a\n1\n2\n1\n2\n"


def test_parquet_stores_csv_cells_as_text_if_the_schema_says_so(tmp_path: Path) -> None:
    records = pa.RecordBatch.from_pydict({"a": [b"x", b"", b"\xff\xc3\xa4"], "n": [1, 2, 3]})
    schema = pa.schema([("a", pa.string()), ("n", pa.int64())])
    with open_writer(tmp_path / "out.parquet", schema) as writer:
        writer.write(records)
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.field("a").type == pa.string()
    assert table["a"].to_pylist() == ["x", None, "\\xffä"]


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_an_error_leaves_no_file_and_does_not_change_the_old_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    records = pa.RecordBatch.from_pydict({"a": [1]})

    def fail() -> None:
        with open_writer(path, records.schema, overwrite=True) as writer:
            writer.write(records)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_writer(path, pa.schema([("a", pa.int64())])) as writer:
        writer.write(pa.RecordBatch.from_pydict({"a": [1]}))
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("there.csv", "already exists; --overwrite replaces it"),
        ("out.xlsx", "expected a name that ends in .csv, .csv.gz, .parquet"),
        ("nowhere/out.csv", "no such folder"),
        ("folder.csv", "is a folder"),
        (
            "lists.csv",
            "can't be written as CSV: column a is of type list<item: int64>; write .parquet",
        ),
    ],
)
def test_an_unwritable_target_is_refused_in_one_line(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "there.csv").write_bytes(b"")
    (tmp_path / "folder.csv").mkdir()
    kind = pa.list_(pa.int64()) if name == "lists.csv" else pa.int64()
    with (
        pytest.raises(BookError) as caught,
        open_writer(tmp_path / name, pa.schema([("a", kind)])),
    ):
        pass
    assert str(caught.value) == f"{tmp_path}/{name}: {reason}"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BookError, match=r"out\.csv: can't be written: No space left on device"):
        write(tmp_path / "out.csv", pa.RecordBatch.from_pydict({"a": [1]}))
    assert list(tmp_path.iterdir()) == []


# --- Fingerprint -----------------------------------------------------------------------------

VALUES = st.tuples(
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=4),
    st.integers(0, 1),
)


def fingerprint_of(path: Path) -> str:
    fingerprint = Fingerprint(DEFINITION)
    for part in open_book(path).parts():
        batch = read_loans(DEFINITION, part, label=True)
        assert not batch.problems
        fingerprint.update(batch.loans, batch.labels)
    return fingerprint.hexdigest()


@given(st.lists(VALUES, min_size=1, max_size=20), st.integers(0, 20))
def test_format_and_parts_do_not_change_a_fingerprint(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float | None, str | None, int]],
    cut: int,
) -> None:
    folder = tmp_path_factory.mktemp("print")
    columns = dict(zip("nty", map(list, zip(*rows, strict=True)), strict=True))
    schema = pa.schema([("n", pa.float64()), ("t", pa.string()), ("y", pa.int64())])
    records = pa.RecordBatch.from_pydict(columns, schema=schema)
    write(folder / "book.csv", records)
    write(folder / "book.parquet", records)
    whole = fingerprint_of(folder / "book.csv")
    assert fingerprint_of(folder / "book.parquet") == whole

    # As reading spells them.
    loans = Loans.of(DEFINITION, [(number, text and plain(text)) for number, text, _ in rows])
    labels = np.array([row[2] for row in rows])
    fingerprint = Fingerprint(DEFINITION)
    for positions in (np.arange(min(cut, len(rows))), np.arange(min(cut, len(rows)), len(rows))):
        fingerprint.update(loans.take(positions), labels[positions])
    assert fingerprint.hexdigest() == whole


def test_any_change_changes_a_fingerprint() -> None:
    def digest(n: list[float], t: list[str | None], y: list[int] | None) -> str:
        fingerprint = Fingerprint(DEFINITION)
        loans = Loans(DEFINITION, {"n": np.array(n), "t": TextColumn.of(t)}, len(n))
        fingerprint.update(loans, None if y is None else np.array(y))
        return fingerprint.hexdigest()

    base = digest([1.0, 2.0], ["a", "b"], [0, 1])
    assert digest([1.0, -0.0], ["a", "b"], [0, 1]) == digest([1.0, 0.0], ["a", "b"], [0, 1])
    others = [
        digest([1.0, math.nextafter(2.0, 3.0)], ["a", "b"], [0, 1]),
        digest([1.0, math.nan], ["a", "b"], [0, 1]),
        digest([2.0, 1.0], ["a", "b"], [0, 1]),
        digest([1.0, 2.0], ["ab", None], [0, 1]),
        digest([1.0, 2.0], [None, "ab"], [0, 1]),
        digest([1.0, 2.0], ["", "ab"], [0, 1]),
        digest([1.0, 2.0], ["a", "b"], [1, 0]),
        digest([1.0, 2.0], ["a", "b"], None),
    ]
    assert len({base, *others}) == 9


FORMULAS = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\r\n=x", '="a,b"', "-", "＝1", "+49 30 1"]
PLAIN = ["-5", "+5", "-0.5", "-1e-9", "1-2", "a=b", "", "'=1", " =1", "x\n=1"]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_string(), pa.string_view()])
def test_a_text_that_is_a_formula_is_escaped(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "out.csv"
    texts = [*FORMULAS, *PLAIN]
    values = pa.array([text.encode() for text in texts], pa.binary()).cast(kind)
    records = pa.RecordBatch.from_pydict({"=t": values, "n": pa.array([-1.5] * len(texts))})
    write(path, records)
    assert cells(path) == [[text.encode() for text in texts], [b"-1.5"] * len(texts)]
    write(path, records, overwrite=True, spreadsheet_safe=True)
    safe = [*(f"'{text}".encode() for text in FORMULAS), *map(str.encode, PLAIN)]
    assert cells(path) == [safe, [b"-1.5"] * len(texts)]
    assert open_book(path).columns == ("'=t", "n")
    assert [escape_formula(text).encode() for text in texts] == safe


def test_formulas_in_dictionary_columns_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "out.csv.gz"
    column = pa.array(["=1", "a", None, "=1"]).dictionary_encode()
    write(path, pa.RecordBatch.from_pydict({"t": column, "n": [1, 2, 3, 4]}), spreadsheet_safe=True)
    assert cells(path)[0] == [b"'=1", b"a", b"", b"'=1"]


def test_spreadsheet_safe_is_refused_for_parquet(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with pytest.raises(BookError, match=r"--spreadsheet-safe is for \.csv and \.csv\.gz alone"):
        write(path, pa.RecordBatch.from_pydict({"t": ["=1"]}), spreadsheet_safe=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([12345678901.0, 0.0, 1e9, 0.1, None, 2.0**62]), None),
        (
            pa.array([20010001.0, 123456792.0, 0.0, 16777216.0], pa.float64()).cast(pa.float32()),
            None,
        ),
        (pa.array([2048.0, 0.5, None], pa.float32()).cast(pa.float16()), None),
        (pa.array([1e30, float("inf"), -1.5]), ["1e+30", "inf", "-1.5"]),
    ],
    ids=["doubles", "singles", "halves", "beyond whole numbers"],
)
def test_whole_numbers_have_one_text_in_csv_and_in_the_ledger(
    tmp_path: Path, column: pa.Array, texts: list[str] | None
) -> None:
    """An id that is recorded from Parquet, and again from the CSV of it, is the same."""
    schema = pa.schema([("id", column.type), ("more", pa.int64())])
    with open_writer(tmp_path / "out.csv", schema) as writer:
        writer.write(pa.record_batch([column, pa.array([1] * len(column))], schema=schema))
    lines = (tmp_path / "out.csv").read_text("utf-8").splitlines()[1:]
    expected = texts or ["" if value is None else text_of(value) for value in column.to_pylist()]
    assert [line.removesuffix(",1") for line in lines] == expected
