"""Scoring whole books: what was given stays, and every decision is the one the API would give."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.commands import Run
from helpers.paths import FORMATS
from helpers.stores import VersionOf
from peerloan.book import BookError, open_book
from peerloan.loan import Checks, Value
from peerloan.registry import Bundle, Store
from peerloan.scoring import REASON_COLUMNS, score_book

ADDED = ["probability", "late", "band", *REASON_COLUMNS, "model_version"]
OUTS = [".csv", ".csv.gz", ".parquet"]
HEADER = ["note", "rating", "contract no.", "open loans", "Möbel", "income.monthly", "outcome"]

Row = dict[str, Any]


@pytest.fixture(params=["scorecard", "onnx"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """A tiny version of another lender's."""
    return tiny(request.param)


def tiny(kind: str) -> Bundle:
    return Bundle.read(next(p for p in (FORMATS / f"format-1-{kind}").iterdir() if p.is_dir()))


def rows(count: int) -> list[list[str]]:
    """Good rows as CSV holds them, with every oddity that CSV allows."""
    notes = ["", "plain", 'a "quoted" one', "two\nlines", "comma, here", " spaces ", "ünïcödé", "0"]
    ratings = ["A+", "A", "B", "C"]
    numbers = ["0", "1", "2", "3", "", "50", "7.0", "1e1", "NA", "+6"]
    goods = ["sofa & chairs", "kitchen (fitted)", "bed < 200 €", "lamp", "", 'a "big" lamp, red']
    incomes = ["0.01", "999.9999999999999", "1000", "1500.50", "2200.000000000001", " 4999.995 "]
    incomes += ["1e12", "01234.5", ".5"]
    made = zip(
        *(itertools.cycle(each) for each in (notes, ratings)),
        map(str, range(count)),
        *(itertools.cycle(each) for each in (numbers, goods, incomes, ["good", "bad", ""])),
        strict=False,
    )
    return [list(row) for row in made]


def write_csv(path: Path, lines: list[list[str]], header: list[str] = HEADER) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    opened: Any = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    return header, lines


def decisions(bundle: Bundle, lines: list[list[str]], header: list[str] = HEADER) -> list[Row]:
    """What the bundle says of each row, one loan at a time, as the API asks it."""
    checks = Checks(bundle.definition)
    found = []
    for line in lines:
        given = dict(zip(header, line, strict=True))
        record: dict[str, Value] = {}
        for field in bundle.definition.fields:
            text = given[field.name]
            if field.is_number:
                record[field.name] = None if text.strip() in ("", "NA") else float(text)
            else:
                record[field.name] = text or None
        checked = checks.loan(record)
        assert not checked.problems
        decision = bundle.decide(checked.values)
        sentences = [reason.sentence for reason in decision.reasons or []]
        found.append(
            {
                "probability": decision.probability,
                "late": decision.late,
                "band": decision.band,
                **dict(itertools.zip_longest(REASON_COLUMNS, sentences)),
                "model_version": bundle.version,
            }
        )
    return found


def added_of(path: Path) -> list[Row]:
    """The added columns of a scored book, as Python values."""
    if path.name.endswith(".parquet"):
        found: list[Row] = pq.read_table(path).select(ADDED).to_pylist()
        return found
    header, lines = read_csv(path)
    table = [dict(zip(header, line, strict=True)) for line in lines]
    return [
        {
            "probability": float(row["probability"]),
            "late": {"true": True, "false": False}[row["late"]],
            **{name: row[name] or None for name in ADDED[2:]},
        }
        for row in table
    ]


@pytest.mark.parametrize("ending", OUTS)
def test_csv_in_keeps_its_cells_and_gets_the_decisions_of_single_loans(
    tmp_path: Path, bundle: Bundle, ending: str
) -> None:
    lines = rows(400)
    out = tmp_path / f"out{ending}"
    scored = score_book(open_book(write_csv(tmp_path / "in.csv", lines)), bundle, out)
    due = decisions(bundle, lines)
    assert added_of(out) == due, "to the last bit"
    late = sum(row["late"] for row in due)
    assert 0 < late < 400
    assert (scored.rows, scored.late, scored.rejected, scored.rejects) == (400, late, 0, None)
    assert any("note" in each for each in scored.notes), "an extra column stays, with a note"
    if ending == ".parquet":
        table = pq.read_table(out)
        assert table.column_names == [*HEADER, *ADDED]
        # A whole number may be larger than any 64-bit integer.
        assert table.schema.field("open loans").type == pa.float64()
        assert table.schema.field("income.monthly").type == pa.float64()
        assert table["income.monthly"].to_pylist() == [float(line[5]) for line in lines]
        for i in (0, 1, 2, 4):
            assert table[HEADER[i]].to_pylist() == [line[i] or None for line in lines]
    else:
        header, found = read_csv(out)
        assert header == [*HEADER, *ADDED]
        assert [line[: len(HEADER)] for line in found] == lines, "verbatim"
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", out.name}


@pytest.mark.parametrize("ending", OUTS)
def test_parquet_in_keeps_its_types_and_gets_the_same_decisions(
    tmp_path: Path, bundle: Bundle, ending: str
) -> None:
    lines = rows(200)
    numbers = [None if line[3] in ("", "NA") else int(float(line[3])) for line in lines]
    table = pa.table(
        {
            "note": [line[0] for line in lines],
            "rating": pa.array([line[1] for line in lines]).dictionary_encode(),
            "contract no.": pa.array(range(200), pa.int32()),
            "open loans": pa.array(numbers, pa.int16()),
            "Möbel": [line[4] or None for line in lines],
            "income.monthly": [float(line[5]) for line in lines],
            "outcome": [line[6] == "bad" for line in lines],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    out = tmp_path / f"out{ending}"
    score_book(open_book(tmp_path / "in.parquet"), bundle, out)
    assert added_of(out) == decisions(bundle, lines)
    if ending == ".parquet":
        found = pq.read_table(out)
        assert found.select(HEADER).to_pylist() == table.to_pylist()
        for name in set(HEADER) - {"rating"}:
            assert found.schema.field(name).type == table.schema.field(name).type
    else:
        header, cells = read_csv(out)
        assert header == [*HEADER, *ADDED]
        assert [row[0] for row in cells] == [line[0] for line in lines]
        assert [float(row[5]) for row in cells] == [float(line[5]) for line in lines]
        assert [row[3] for row in cells] == ["" if n is None else str(n) for n in numbers]


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_trained_versions_decide_on_a_book_as_on_single_loans(
    store: Store,
    version_of: VersionOf,
    sample_book: Path,
    tmp_path: Path,
    candidate: str,
) -> None:
    header, lines = read_csv(sample_book)
    lines = lines[: 6_000 if candidate == "additive" else 60]
    bundle = store.load(version_of(candidate))
    book = open_book(write_csv(tmp_path / "in.csv", lines, header))
    due = decisions(bundle, lines, header)
    for ending in (".csv", ".parquet"):
        score_book(book, bundle, tmp_path / f"out{ending}")
        assert added_of(tmp_path / f"out{ending}") == due
    # And without reasons, in one go for many more loans.
    everything = decisions(bundle, lines, header)
    score_book(book, bundle, tmp_path / "bare.csv", reasons=False)
    bare = added_of(tmp_path / "bare.csv")
    assert [row["probability"] for row in bare] == [row["probability"] for row in everything]
    assert all(row[name] is None for row in bare for name in REASON_COLUMNS)


def bad_book(path: Path) -> tuple[Path, list[list[str]]]:
    """A book with four bad rows, and its good ones."""
    lines = rows(10)
    good = [lines[i] for i in (0, 2, 4, 6, 8, 9)]
    lines[1][5] = "-5"
    lines[3][1], lines[3][3] = "Z", "2.5"
    lines[5] = [*lines[5], "one cell more"]
    lines[7][5] = ""
    return write_csv(path, lines), good


REJECTS = [
    ["row", "field", "expected", "given"],
    ["2", "income.monthly", "a number (euros), above 0", "-5"],
    ["4", "open loans", "a whole number, at least 0, at most 50, or nothing", "2.5"],
    ["4", "rating", "one of 'A+', 'A', 'B', 'C'", "'Z'"],
    ["6", "(row)", "7 cells", "8 cells"],
    ["8", "income.monthly", "a number (euros), above 0", "nothing"],
]


@pytest.mark.parametrize("ending", OUTS)
def test_bad_rows_go_to_the_rejects_and_the_good_ones_are_scored(
    tmp_path: Path, bundle: Bundle, ending: str
) -> None:
    book, good = bad_book(tmp_path / "in.csv")
    out = tmp_path / f"out{ending}"
    scored = score_book(open_book(book), bundle, out)
    assert added_of(out) == decisions(bundle, good)
    assert (scored.rows, scored.rejected) == (6, 4)
    assert scored.rejects == tmp_path / f"out{ending}.rejects"
    assert scored.rejects is not None
    with scored.rejects.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == REJECTS


def test_strict_stops_at_the_first_bad_row_and_writes_nothing(
    tmp_path: Path, bundle: Bundle
) -> None:
    book, _ = bad_book(tmp_path / "in.csv")
    for name in ("old.csv", "old.csv.rejects"):
        (tmp_path / name).write_text("as it was")
    with pytest.raises(BookError, match=r"row 2, income\.monthly: expected .* given -5"):
        score_book(open_book(book), bundle, tmp_path / "out.csv", strict=True)
    with pytest.raises(BookError, match="row 2"):
        score_book(open_book(book), bundle, tmp_path / "old.csv", strict=True, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "old.csv", "old.csv.rejects"}
    assert (tmp_path / "old.csv").read_text() == "as it was"
    assert (tmp_path / "old.csv.rejects").read_text() == "as it was"


@pytest.mark.parametrize("existing", ["out.csv", "out.csv.rejects"])
def test_what_is_there_already_is_kept_unless_told_otherwise(
    tmp_path: Path, bundle: Bundle, existing: str
) -> None:
    book = open_book(write_csv(tmp_path / "in.csv", rows(5)))
    (tmp_path / existing).write_text("as it was")
    with pytest.raises(BookError, match=f"{existing}: already exists"):
        score_book(book, bundle, tmp_path / "out.csv")
    assert (tmp_path / existing).read_text() == "as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", existing}
    score_book(book, bundle, tmp_path / "out.csv", overwrite=True)
    # The rejects of an earlier run are none of this one.
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}
    assert len(added_of(tmp_path / "out.csv")) == 5


@pytest.mark.parametrize("ending", OUTS)
def test_a_book_without_a_good_row_gives_an_empty_table(
    tmp_path: Path, bundle: Bundle, ending: str
) -> None:
    lines = [[*line[:5], "none", line[6]] for line in rows(3)]
    out = tmp_path / f"out{ending}"
    scored = score_book(open_book(write_csv(tmp_path / "in.csv", lines)), bundle, out)
    assert (scored.rows, scored.late, scored.rejected) == (0, 0, 3)
    if ending == ".parquet":
        assert pq.read_table(out).num_rows == 0
        assert pq.read_table(out).column_names == [*HEADER, *ADDED]
    else:
        assert read_csv(out) == ([*HEADER, *ADDED], [])


@pytest.mark.parametrize("column", ["probability", "late", "band", "reason_2", "model_version"])
def test_a_scored_book_is_not_scored_again(tmp_path: Path, bundle: Bundle, column: str) -> None:
    lines = [[*line, "x"] for line in rows(2)]
    book = open_book(write_csv(tmp_path / "in.csv", lines, [*HEADER, column]))
    with pytest.raises(BookError, match=f"'{column}'.*scored book"):
        score_book(book, bundle, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("kind", ["scorecard", "onnx"])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_minus_nothing_is_nothing(tmp_path: Path, kind: str, ending: str) -> None:
    """−0 and 0 are one number: both have the same reasons, in either order."""
    bundle = tiny(kind)
    lines = [[*line[:3], sign, *line[4:]] for line in rows(30) for sign in ("-0", "0")]
    score_book(open_book(write_csv(tmp_path / "in.csv", lines)), bundle, tmp_path / f"out{ending}")
    found = added_of(tmp_path / f"out{ending}")
    assert found == decisions(bundle, lines)
    assert found[::2] == found[1::2]


def test_a_missing_column_is_named_before_anything_is_written(
    tmp_path: Path, bundle: Bundle
) -> None:
    lines = [line[:5] for line in rows(2)]
    book = open_book(write_csv(tmp_path / "in.csv", lines, HEADER[:5]))
    with pytest.raises(BookError, match=r"column income\.monthly"):
        score_book(book, bundle, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_column_that_may_be_missing_may_be_absent(tmp_path: Path, bundle: Bundle) -> None:
    lines = rows(30)
    without = [[*line[:3], *line[4:]] for line in lines]
    header = [*HEADER[:3], *HEADER[4:]]
    book = open_book(write_csv(tmp_path / "in.csv", without, header))
    scored = score_book(book, bundle, tmp_path / "out.parquet")
    assert any("open loans" in each for each in scored.notes)
    due = decisions(bundle, [[*line[:3], "", *line[4:]] for line in lines])
    assert added_of(tmp_path / "out.parquet") == due
    assert pq.read_table(tmp_path / "out.parquet").column_names == [*header, *ADDED]


def test_a_book_of_several_parts_and_files_is_one_table(tmp_path: Path) -> None:
    bundle = tiny("scorecard")
    many = rows(70_000)
    many[66_000][5] = "-1"
    (tmp_path / "book").mkdir()
    write_csv(tmp_path / "book" / "a.csv", many)
    write_csv(tmp_path / "book" / "b.csv", rows(5))
    told: list[float] = []
    out = tmp_path / "out.parquet"
    scored = score_book(open_book(tmp_path / "book"), bundle, out, progress=told.append)
    assert (scored.rows, scored.rejected) == (70_004, 1)
    assert scored.rejects is not None
    assert read_csv(scored.rejects)[1][0][:2] == ["66001", "income.monthly"]
    del many[66_000]
    found = added_of(out)
    sample = [*range(0, 70_004, 97), 65_535, 65_536, 65_999, 66_000, 70_003]
    every = many + rows(5)
    assert [found[i] for i in sample] == decisions(bundle, [every[i] for i in sample])
    assert pq.read_table(out)["contract no."].to_pylist() == [line[2] for line in every]
    assert told == sorted(told)
    assert all(0 <= each <= 1 for each in told)


@pytest.mark.parametrize("number", ["9007199254740993", "1e19", "1e300", "99999999999999999999"])
@pytest.mark.parametrize("ending", OUTS)
def test_whole_numbers_of_any_size_are_scored(
    store: Store,
    version_of: VersionOf,
    sample_book: Path,
    tmp_path: Path,
    number: str,
    ending: str,
) -> None:
    header, lines = read_csv(sample_book)
    lines = lines[:3]
    lines[1][header.index("delinq_2yrs")] = number
    bundle = store.load(version_of("additive"))
    book = open_book(write_csv(tmp_path / "in.csv", lines, header))
    scored = score_book(book, bundle, tmp_path / f"out{ending}")
    assert scored.rows == 3
    if ending == ".parquet":
        assert pq.read_table(tmp_path / "out.parquet")["delinq_2yrs"][1].as_py() == float(number)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("out.txt", "ends in"),
        ("nowhere/out.csv", "nowhere"),
        ("in.csv", "one of the book's own files"),
    ],
)
def test_an_out_that_can_not_be_is_refused(
    tmp_path: Path, bundle: Bundle, out: str, words: str
) -> None:
    book = open_book(write_csv(tmp_path / "in.csv", rows(3)))
    before = (tmp_path / "in.csv").read_bytes()
    with pytest.raises(BookError, match=words):
        score_book(book, bundle, tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert (tmp_path / "in.csv").read_bytes() == before


def test_the_book_itself_is_never_overwritten(tmp_path: Path, bundle: Bundle) -> None:
    book = open_book(write_csv(tmp_path / "in.csv", rows(3)))
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    before = (tmp_path / "in.csv").read_bytes()
    for out in (tmp_path / "in.csv", tmp_path / "link.csv", tmp_path / "x" / ".." / "in.csv"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(BookError, match="is one of the book's own files"):
            score_book(book, bundle, out, overwrite=True)
    # The rejects' file would be replaced just as well.
    shutil.copy(tmp_path / "in.csv", tmp_path / "out.csv.rejects")
    book = open_book(tmp_path / "out.csv.rejects")
    with pytest.raises(BookError, match="is one of the book's own files"):
        score_book(book, bundle, tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "in.csv").read_bytes() == before
    assert (tmp_path / "out.csv.rejects").read_bytes() == before


def test_a_full_disk_leaves_neither_out_nor_rejects(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, _ = bad_book(tmp_path / "in.csv")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BookError, match=r"out\.csv.*No space left"):
        score_book(open_book(book), bundle, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


# As a process


@pytest.fixture
def lender(tmp_path: Path) -> Path:
    """The test's store with a tiny champion; its folder."""
    store = Store(tmp_path / "store")
    for kind in ("scorecard", "onnx"):
        folder = next(p for p in (FORMATS / f"format-1-{kind}").iterdir() if p.is_dir())
        shutil.copytree(folder, store.root / "versions" / folder.name)
    store.promote(tiny("scorecard").version)
    return tmp_path


def test_score_as_a_command(lender: Path, run: Run) -> None:
    write_csv(lender / "in.csv", rows(50))
    done = run("score", "in.csv", "-o", "out.parquet")
    assert done.returncode == 0, done.stderr
    assert "out.parquet: 50 loans" in done.stdout
    assert "note: " in done.stderr
    assert "scoring with small-scorecard-1-1" in done.stderr
    assert added_of(lender / "out.parquet") == decisions(tiny("scorecard"), rows(50))


def test_score_makes_formulas_harmless_only_if_it_is_asked_to(lender: Path, run: Run) -> None:
    lines = rows(4)
    lines[0][0], lines[1][0], lines[2][0] = "=1+1", "-5", "@x"
    lines[3] = ["+1+1", "=A", "3", "x", "lamp", "-1", "good"]
    write_csv(lender / "in.csv", lines)
    for option, notes in (
        ([], ["=1+1", "-5", "@x"]),
        (["--spreadsheet-safe"], ["'=1+1", "-5", "'@x"]),
    ):
        done = run("score", "in.csv", "-o", "out.csv", "--overwrite", *option)
        assert done.returncode == 1, done.stderr
        assert [line[0] for line in read_csv(lender / "out.csv")[1]] == notes
        rejects = [line[3] for line in read_csv(lender / "out.csv.rejects")[1]]
        assert set(rejects) == {"'x'", "'=A'", "-1"}
    done = run("score", "in.csv", "-o", "out.parquet", "--spreadsheet-safe")
    assert done.returncode == 1
    assert "--spreadsheet-safe is for .csv and .csv.gz alone" in done.stderr
    assert not (lender / "out.parquet").exists()


def test_score_with_another_version_tells_of_bad_rows_and_exits_1(lender: Path, run: Run) -> None:
    _, good = bad_book(lender / "in.csv")
    version = tiny("onnx").version
    done = run("score", "in.csv", "-o", "out.csv.gz", "--model", version, "--json")
    assert done.returncode == 1
    assert "4 rows could not be scored: see out.csv.gz.rejects" in done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] == 6
    assert told["rejected"] == 4
    assert told["rejects"] == "out.csv.gz.rejects"
    assert told["model_version"] == version
    assert added_of(lender / "out.csv.gz") == decisions(tiny("onnx"), good)


def test_score_strictly_as_a_command(lender: Path, run: Run) -> None:
    bad_book(lender / "in.csv")
    done = run("score", "in.csv", "-o", "out.csv", "--strict")
    assert done.returncode == 1
    assert "row 2, income.monthly" in done.stderr
    assert not list(lender.glob("*out*")), "no part is left"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_out(
    store: Store, version_of: VersionOf, sample_book: Path, tmp_path: Path, number: int
) -> None:
    """A forest's reasons take minutes for this book: the run is in the midst of it."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "peerloan", "score", str(sample_book)),
            *("-o", "out.csv", "--model", version_of("basic")),
        ],
        cwd=tmp_path,
        env=os.environ | {"PEERLOAN_STORE": str(store.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 30
    while not list(tmp_path.glob(".out.csv.*.part")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "out.csv.rejects").exists()
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert told.splitlines()[-1] == "peerloan: stopped"
        assert not list(tmp_path.glob(".out*")), "no part is left"
