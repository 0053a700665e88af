"""Tables of every type: what `check` accepts is scored, and other columns come out as they were."""

from __future__ import annotations

import csv
import datetime
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from helpers.paths import FORMATS
from peerloan.book import (
    Book,
    BookError,
    Part,
    check_book,
    check_columns,
    draft_definition,
    open_writer,
    read_loans,
)
from peerloan.book.parts import TableFile
from peerloan.cli.main import peerloan
from peerloan.database import Database
from peerloan.ledger.audit.replay import count_decisions
from peerloan.registry import Store
from peerloan.scoring import score_book

ROWS = 3
GOOD = [True, False, True]
# The tiny version's fields.
FIELDS: dict[str, list[Any]] = {
    "income.monthly": [1000.0, 2500.5, 800.0],
    "open loans": [1, 2, None],
    "Möbel": ["lamp", None, "sofa & chairs"],
    "rating": ["A+", "B", "C"],
}
UTC = datetime.UTC
MOMENT = datetime.datetime(2026, 11, 25, 10, 30, tzinfo=UTC)
D = Decimal


def dictionary(values: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, None, 0], pa.int8()), values)


def stored(kind: Any, values: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, values)


# Every type that Parquet gives back as it was.
KEPT: dict[str, pa.Array] = {
    "null": pa.nulls(ROWS),
    "bool": pa.array([True, None, False]),
    "int8": pa.array([1, None, -1], pa.int8()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "int64": pa.array([2**63 - 1, None, 2**53 + 1]),
    "half": pa.array([0.5, None, float("nan")], pa.float16()),
    "single": pa.array([0.1, None, float("inf")], pa.float32()),
    "double": pa.array([0.1, None, -0.0]),
    "decimal32": pa.array([D("1.10"), None, D("11.00")], pa.decimal32(5, 2)),
    "decimal64": pa.array([D("1.10"), None, D("11.00")], pa.decimal64(9, 2)),
    "decimal128": pa.array([D("1.10"), None, D("11.00")], pa.decimal128(9, 2)),
    "decimal256": pa.array([D("1.10"), None, D("11.00")], pa.decimal256(60, 2)),
    "date32": pa.array([MOMENT.date(), None, MOMENT.date()]),
    "time32": pa.array([1, None, 2], pa.time32("ms")),
    "time64": pa.array([1, None, 2], pa.time64("ns")),
    "time": pa.array([MOMENT.replace(tzinfo=None), None, None], pa.timestamp("ns")),
    "zoned": pa.array([MOMENT, None, MOMENT], pa.timestamp("us", "Europe/Berlin")),
    "offset": pa.array([MOMENT, None, MOMENT], pa.timestamp("ms", "+01:00")),
    "duration": pa.array([1, None, 2], pa.duration("s")),
    "string": pa.array(["a", None, 'say "ü"']),
    "large string": pa.array(["a", None, ""], pa.large_string()),
    "string view": pa.array(["a", None, "longer than twelve bytes"], pa.string_view()),
    "binary": pa.array([b"\xff\xd8\xff", None, b"\x00"]),
    "large binary": pa.array([b"\xff", None, b""], pa.large_binary()),
    "binary view": pa.array([b"\xff", None, b"a"], pa.binary_view()),
    "fixed binary": pa.array([b"\xff\xfe", None, b"ab"], pa.binary(2)),
    "dictionary": dictionary(pa.array(["a", "b"])),
    "list": pa.array([[1], None, []]),
    "large list": pa.array([[1], None, []], pa.large_list(pa.int8())),
    "list view": pa.array([[1], None, []], pa.list_view(pa.int8())),
    "fixed list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
    "struct": pa.array([{"a": 1}, None, {"a": None}]),
    "view in struct": pa.array(
        [{"a": "x"}, None, {"a": None}], pa.struct([("a", pa.string_view())])
    ),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int8())),
    "uuid": pa.array([b"0123456789abcdef", None, b"\xff" * 16], pa.uuid()),
    "bool8": stored(pa.bool8(), pa.array([1, None, 0], pa.int8())),
    "json": stored(pa.json_(), pa.array(['{"a":1}', None, "1"])),
}
# Those that Arrow has, and no Parquet file.
OTHERS: dict[str, pa.Array] = {
    "runs": pc.run_end_encode(pa.array(["lamp", "lamp", "bed"])),
    "runs of views": pa.RunEndEncodedArray.from_arrays(
        pa.array([2, 3], pa.int32()), pa.array(["lamp", None], pa.string_view())
    ),
    "dictionary of views": dictionary(pa.array(["lamp"], pa.string_view())),
    "dictionary of decimals": dictionary(pa.array([D("11.00")])),
    "date64": pa.array([MOMENT.date(), None, MOMENT.date()], pa.date64()),
    "seconds": pa.array([1, None, 2], pa.timestamp("s")),
    "no zone": pa.array([1, None, 2], pa.timestamp("s", "Nowhere/City")),
    "interval": pa.array([(1, 2, 3), None, None], pa.month_day_nano_interval()),
    "union": pa.UnionArray.from_sparse(pa.array([0, 0, 0], pa.int8()), [pa.array([1, 2, 3])]),
    "negative scale": pa.array([D("1100"), None, D("300")], pa.decimal128(5, -2)),
}
NO_CSV = {"duration", "list", "large list", "list view", "fixed list", "struct", "view in struct"}
NO_CSV |= {"map", "interval", "union", "no zone"}
NO_TEXT = {"binary", "large binary", "binary view", "fixed binary"}
# Which of a category's values are wrong, where not all that are there are.
NO_PARQUET = {"runs", "runs of views", "dictionary of views", "interval", "union"}
NO_PARQUET |= {"negative scale"}


@pytest.fixture
def champion(tmp_path: Path) -> Store:
    """A store with the tiny scorecard as its champion."""
    source = next(p for p in (FORMATS / "format-1-scorecard").iterdir() if p.is_dir())
    store = Store(tmp_path / "store")
    shutil.copytree(source, store.root / "versions" / source.name)
    store.promote(source.name)
    return store


def call(folder: Path, *arguments: object) -> tuple[int, str]:
    """The exit code of a command and what it says; a mistake is one line, and no other fault."""
    settings = {"PEERLOAN_STORE": str(folder / "store"), "PEERLOAN_LEDGER": ""}
    done = CliRunner().invoke(peerloan, [*map(str, arguments)], env=settings)
    if done.exception is None or isinstance(done.exception, SystemExit):
        return done.exit_code, done.output
    assert type(done.exception).__module__.startswith("peerloan."), repr(done.exception)
    assert len(str(done.exception).splitlines()) == 1
    return 1, done.stdout + str(done.exception)


def recorded(folder: Path) -> int:
    """How many decisions are in the ledger."""
    return count_decisions(Database(f"sqlite:///{folder / 'peerloan-ledger' / 'ledger.db'}"))


def table(**others: pa.Array) -> pa.Table:
    columns = {name: pa.array(values) for name, values in FIELDS.items()}
    columns["income.monthly"] = pa.array([1000.0, 0.0, 800.0])  # the second row is refused
    return pa.table(columns | {name.replace("_", " "): value for name, value in others.items()})


@pytest.mark.parametrize("name", KEPT)
def test_another_column_comes_out_as_it_went_in(tmp_path: Path, champion: Store, name: str) -> None:
    given = KEPT[name]
    field = pa.field("other", given.type, metadata={"by": "its writer"})
    columns = table(other=given)
    columns = columns.cast(columns.schema.set(4, field))
    pq.write_table(columns, tmp_path / "book.parquet")
    field = pq.read_schema(tmp_path / "book.parquet").field("other")
    assert field.type == given.type
    assert call(tmp_path, "check", tmp_path / "book.parquet")[0] == 1
    told = call(tmp_path, "score", tmp_path / "book.parquet", "-o", tmp_path / "o.parquet")[1]
    assert "1 row could not be scored" in told
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.schema.field("other").equals(field, check_metadata=True)
    left = given.slice(0, 1).to_pylist() + given.slice(2, 1).to_pylist()
    assert repr(found.column("other").to_pylist()) == repr(left)
    code, told = call(
        tmp_path, "score", tmp_path / "book.parquet", "-o", tmp_path / "o.csv", "--record"
    )
    if name in NO_CSV | NO_TEXT:
        assert (code, "column other is of type " + str(field.type) in told) == (1, True), told
        assert recorded(tmp_path) == 0
        assert list(tmp_path.glob("*.csv*")) == []
    else:
        assert "1 row could not be scored" in told
        with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == 2


def test_every_command_reads_a_table_of_all_types(tmp_path: Path, champion: Store) -> None:
    path = tmp_path / "book.parquet"
    outcomes = pa.array(["good", "bad", "good"])
    pq.write_table(table(outcome=outcomes, **KEPT), path)
    assert call(tmp_path, "check", path)[0] == 1
    code, told = call(tmp_path, "define", path, "--label", "outcome", "-o", tmp_path / "d.toml")
    assert code == 0, told
    assert 'name = "decimal128"' in (tmp_path / "d.toml").read_text()
    code, told = call(tmp_path, "monitor", "--book", path)
    assert "2 loans" in told, told
    assert "row 2, income.monthly: expected" in call(tmp_path, "train", path)[1]
    code, told = call(tmp_path, "explore", path, "-o", tmp_path / "report.html")
    assert code == 0, told


class Memory:
    """A table in memory, as a file of a book."""

    format = "memory"
    has_rows = True
    notes: tuple[str, ...] = ()

    def __init__(self, records: pa.RecordBatch, path: Path) -> None:
        self.schema, self.path, self._records = records.schema, path, records

    def first_lines(self) -> list[tuple[int, str]]:
        return []

    def parts(self, first: int, _at_byte: Callable[[int], None]) -> Any:
        yield Part(self._records, np.arange(first, first + ROWS), [])


def book_of(tmp_path: Path, columns: dict[str, pa.Array]) -> Book:
    (tmp_path / "memory").touch()
    records = pa.RecordBatch.from_pydict(columns)
    file: TableFile = Memory(records, tmp_path / "memory")
    return Book("memory", (file,), records.schema, 1)


def refusal(work: Callable[..., object], *arguments: object) -> str:
    """The message of the error, which has one line; empty if there is none."""
    try:
        work(*arguments)
    except BookError as error:
        (line,) = str(error).splitlines()
        return line
    return ""


@pytest.mark.parametrize("name", [*KEPT, *OTHERS])
def test_what_check_accepts_is_scored(tmp_path: Path, champion: Store, name: str) -> None:
    given = (KEPT | OTHERS)[name]
    bundle = champion.load(champion.versions()[0])
    good = {key: pa.array(values) for key, values in FIELDS.items()}
    for column in ("other", "Möbel", "open loans", "income.monthly"):
        book = book_of(tmp_path, good | {column: given})
        report = check_book(book, bundle.definition)
        assert refusal(check_columns, bundle.definition, book) == ""
        assert "expected two values of the label" in refusal(draft_definition, book, "rating")
        for ending, lacks in (("csv", NO_CSV), ("parquet", NO_PARQUET)):
            out = tmp_path / f"{column}.{ending}"
            told = refusal(score_book, book, bundle, out)
            if told:
                assert not out.exists()
                assert name in lacks | (NO_TEXT if ending == "csv" else set()), told
                assert f"column {column} is of type {given.type}" in told, told
            else:
                assert name not in lacks
                (part,) = book.parts()
                scored = read_loans(bundle.definition, part).loans.size
                assert scored == ROWS - report.bad_rows


def test_what_is_no_text_or_number_is_a_problem_of_its_values(
    tmp_path: Path, champion: Store
) -> None:
    columns = table().set_column(2, "Möbel", KEPT["duration"])
    columns = columns.set_column(0, "income.monthly", KEPT["struct"])
    pq.write_table(columns, tmp_path / "book.parquet")
    code, told = call(tmp_path, "check", tmp_path / "book.parquet")
    assert code == 1
    assert "  row 1: a value of type duration[s]" in told
    assert "  row 1: a value of type struct<a: int64>" in told


def test_ids_of_a_folder_stay_what_they_are(tmp_path: Path, champion: Store) -> None:
    """Whole ids of 18 digits in one file, doubles with a gap in the next."""
    folder = tmp_path / "book"
    folder.mkdir()
    ids = [143349558619761313, 143349558619761314, 143349558619761315]
    good = {key: pa.array(values) for key, values in FIELDS.items()}
    pq.write_table(pa.table(good | {"contract no.": ids}), folder / "1.parquet")
    pq.write_table(pa.table(good | {"contract no.": [2001.0, None, 2003.0]}), folder / "2.parquet")
    out = tmp_path / "o.csv"
    code, told = call(tmp_path, "score", folder, "-o", out, "--record")
    assert code == 0, told
    with out.open(encoding="utf-8", newline="") as file:
        written = [row["contract no."] for row in csv.DictReader(file)]
    assert written == [*map(str, ids), "2001", "", "2003"]
    code, told = call(tmp_path, "score", folder, "-o", tmp_path / "o.parquet", "--record")
    assert code == 1
    kinds = f"int64 in {folder}/1.parquet and double in {folder}/2.parquet"
    assert told.startswith(f"{folder}/1.parquet: row 1: column contract no. is {kinds}: ")
    assert "given 143349558619761313" in told
    assert not (tmp_path / "o.parquet").exists()


def test_a_folder_of_widths_and_gaps_becomes_one_type(tmp_path: Path, champion: Store) -> None:
    folder = tmp_path / "book"
    folder.mkdir()
    files: list[dict[str, pa.Array]] = [
        {"a": pa.array([1, 2, 3], pa.int32()), "b": pa.nulls(3), "c": KEPT["time"]},
        {"a": pa.array([2**60, 2, 3]), "b": pa.array(["x", "y", "z"]), "c": KEPT["date32"]},
        {"a": KEPT["uint64"], "b": pa.array(["x"] * 3, pa.string_view()), "c": pa.nulls(3)},
    ]
    for i, columns in enumerate(files):
        good = {key: pa.array(values) for key, values in FIELDS.items()}
        pq.write_table(pa.table(good | columns), folder / f"{i}.parquet")
    code, told = call(tmp_path, "score", folder, "-o", tmp_path / "o.parquet")
    assert code == 0, told
    found = pq.read_table(tmp_path / "o.parquet")
    kinds = [found.schema.field(name).type for name in "abc"]
    assert kinds == [pa.decimal128(20, 0), pa.string(), pa.timestamp("ns")]
    assert found.column("a").to_pylist() == [1, 2, 3, 2**60, 2, 3, 2**64 - 1, None, 0]
    assert found.column("b").to_pylist() == [None] * 3 + ["x", "y", "z"] + ["x"] * 3
    days = pc.cast(found.column("c"), pa.date32(), safe=False).to_pylist()
    assert days == [MOMENT.date(), None, None, MOMENT.date(), None, MOMENT.date(), *[None] * 3]


def test_cells_of_csv_are_text_in_parquet(tmp_path: Path, champion: Store) -> None:
    lines = ["income.monthly,open loans,Möbel,rating,scan", "1000,1.0,lamp,A+,0x00"]
    (tmp_path / "book.csv").write_text("\n".join(lines), encoding="utf-8")
    code, told = call(tmp_path, "score", tmp_path / "book.csv", "-o", tmp_path / "o.parquet")
    assert code == 0, told
    schema = pq.read_schema(tmp_path / "o.parquet")
    kinds = [schema.field(name).type for name in ("open loans", "Möbel", "scan")]
    assert kinds == [pa.float64(), pa.string(), pa.string()]


def test_a_table_that_the_format_can_not_hold_is_refused_by_column(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int8()), ("b", pa.month_day_nano_interval())])
    with pytest.raises(BookError) as caught, open_writer(tmp_path / "o.parquet", schema):
        pass
    assert str(caught.value) == (
        f"{tmp_path}/o.parquet: can't be written as Parquet: column b is of type "
        "month_day_nano_interval"
    )


def test_nested_values_of_json_lines_are_written_as_json(tmp_path: Path, champion: Store) -> None:
    rows = [{key: values[i] for key, values in FIELDS.items()} for i in range(ROWS)]
    rows[0]["extra"] = {"a": [1, "x,y"]}
    (tmp_path / "book.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, told = call(tmp_path, "score", tmp_path / "book.jsonl", "-o", tmp_path / "out.csv")
    assert code == 0, told
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        written = [row["extra"] for row in csv.DictReader(file)]
    assert written == ['{"a": [1, "x,y"]}', *[""] * (ROWS - 1)]
