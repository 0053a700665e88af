"""`peerloan ledger export`: a row a decision, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet
import pytest
from sqlalchemy import insert, select

from helpers.commands import Run
from helpers.ledgers import DAY_MS, Ledger, append, now_ms, record
from peerloan import uuid7
from peerloan.database import tables
from peerloan.ledger import Record, Version
from peerloan.ledger.export import export
from peerloan.ledger.retention import purge
from peerloan.loan import Definition, parse_definition
from peerloan.model import BANDS
from peerloan.registry import Store, StoreError

DAY = datetime(2025, 3, 10, tzinfo=UTC)


def ms(day: datetime, hours: float = 0) -> int:
    return int(day.timestamp() * 1000 + hours * 3_600_000)


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def add(ledger: Ledger, table: Any, of: Record, **values: object) -> None:
    with ledger.database.writing() as connection:
        row = {"decision_id": UUID(bytes=of.id)} | values
        connection.execute(insert(table).values(row))


def add_outcome(ledger: Ledger, of: Record, late: bool, observed: int | None) -> None:
    told = {"late": late, "observed": observed, "recorded_ms": now_ms(), "caller": "app"}
    add(ledger, tables.outcomes, of, **told)


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    return Ledger(ledger_url, tmp_path)


@pytest.fixture
def version(store: Store) -> Version:
    """A version that the test's store has."""
    name = store.versions()[0]
    bundle = store.load(name)
    return Version(name, bundle.digest, bundle.policy.threshold)


def test_a_row_has_all_that_is_known_of_a_decision(
    run: Run, ledger: Ledger, store: Store, version: Version, loan: dict[str, Any], tmp_path: Path
) -> None:
    made = record(
        ms(DAY, 1.5),
        version=version,
        inputs=json.dumps(loan | {"revol_util": None, "extra": [1]}),
        warnings='["extra: ignored"]',
        idempotency_key="key-1",
    )
    plain = record(ms(DAY, 2), version=version, inputs=json.dumps(loan), loan_id=None, reasons=None)
    append(ledger.chain(), [made, plain])
    add_outcome(ledger, made, False, 20_200)
    add_outcome(ledger, made, True, 20_201)  # a correction
    add(ledger, tables.challenges, made, version=1, probability=0.125)
    done = run("ledger", "export", "-o", "out.parquet", ledger=ledger.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.parquet: 2 decisions, 1 of them with an outcome\n"
    first, second = rows_of(tmp_path / "out.parquet")
    typed = {k: float(v) if isinstance(v, int | float) else v for k, v in loan.items()}
    assert first == {
        "id": uuid7.text(made.id),
        "time": datetime(2025, 3, 10, 1, 30, tzinfo=UTC),
        "loan_id": made.loan_id,
        **typed,
        "revol_util": None,
        "inputs": made.inputs,
        "margin": made.margin,
        "probability": made.probability,
        "late": made.late,
        "threshold": version.threshold,
        "band": BANDS[made.band],
        "reasons": made.reasons,
        "warnings": made.warnings,
        "model_version": version.version,
        "model_digest": version.digest,
        "source": "api",
        "caller": "app",
        "request_id": made.request_id,
        "idempotency_key": "key-1",
        "challenger_version": version.version,
        "challenger_probability": 0.125,
        "outcome": True,
        "outcome_date": date(2025, 4, 23),
    }
    empty = (
        *("loan_id", "reasons", "warnings", "idempotency_key", "challenger_version"),
        *("challenger_probability", "outcome", "outcome_date"),
    )
    assert [second[name] for name in empty] == [None] * len(empty)
    assert list(first) == list(second)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_csv_says_exactly_what_parquet_does(
    run: Run,
    ledger: Ledger,
    store: Store,
    version: Version,
    loan: dict[str, Any],
    tmp_path: Path,
    ending: str,
) -> None:
    odd = loan | {"int_rate": 0.1 + 0.2, "purpose": 'a "boat",\nnew', "annual_inc": 1e15 + 0.125}
    made = [
        record(ms(DAY, 1.5), version=version, inputs=json.dumps(odd), warnings='["a, b"]'),
        record(ms(DAY, 2), version=version, inputs=json.dumps(loan), loan_id="0012"),
    ]
    append(ledger.chain(), made)
    add_outcome(ledger, made[0], True, 20_201)
    for out in ("out.parquet", f"out{ending}"):
        done = run("ledger", "export", "-o", out, ledger=ledger.url)
        assert done.stdout == f"{out}: 2 decisions, 1 of them with an outcome\n", done.stderr
    path = tmp_path / f"out{ending}"
    data = gzip.decompress(path.read_bytes()) if ending.endswith("gz") else path.read_bytes()
    found = list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))
    assert len(found) == 2
    for row, expected in zip(found, rows_of(tmp_path / "out.parquet"), strict=True):
        assert list(row) == list(expected)
        for name, value in expected.items():
            assert as_cell(row[name], value) == value, name


def as_cell(text: str, like: object) -> object:
    """A cell of CSV as the value that it stands for."""
    if like is None:
        return text or None
    if isinstance(like, bool):
        return {"true": True, "false": False}[text]
    if isinstance(like, datetime):
        return datetime.fromisoformat(text)
    if isinstance(like, date):
        return date.fromisoformat(text)
    return float(text) if isinstance(like, float) else text


def test_columns_have_types_even_where_they_are_empty(
    run: Run, ledger: Ledger, store: Store, version: Version, tmp_path: Path
) -> None:
    append(ledger.chain(), [record(version=version, inputs="{}")])
    run("ledger", "export", "-o", "out.parquet", "--until", "2020-01-01", ledger=ledger.url)
    schema_ = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
    assert pyarrow.parquet.read_metadata(tmp_path / "out.parquet").num_rows == 0
    assert schema_.field("time").type == pa.timestamp("ms", tz="UTC")
    assert schema_.field("loan_amnt").type == pa.float64()
    assert schema_.field("grade").type == pa.string()
    assert schema_.field("outcome").type == pa.bool_()
    assert schema_.field("outcome_date").type == pa.date32()


def test_only_a_time_is_exported_and_nothing_that_was_purged(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    days = [datetime(2025, 3, day, tzinfo=UTC) for day in (8, 9, 10, 11)]
    # The first millisecond of each day, and the last one.
    made = [record(ms(day) + more) for day in days for more in (0, DAY_MS - 1)]
    append(ledger.chain(), made)

    def exported(*options: object) -> list[str]:
        done = run(
            "ledger", "export", "-o", "x.parquet", "--overwrite", *options, ledger=ledger.url
        )
        assert done.returncode == 0, done.stderr
        return [row["id"] for row in rows_of(tmp_path / "x.parquet")]

    every = [uuid7.text(each.id) for each in made]
    assert exported() == every
    assert exported("--since", "2025-03-09") == every[2:]
    assert exported("--until", "2025-03-11") == every[:6]
    assert exported("--since", "2025-03-09", "--until", "2025-03-10") == every[2:4]
    purge(ledger.database, ledger.seal, ms(days[1]), "somebody")
    assert exported() == every[2:]


def test_versions_that_the_store_does_not_have_are_named(
    run: Run, ledger: Ledger, store: Store, version: Version, loan: dict[str, Any], tmp_path: Path
) -> None:
    gone = Version("2020-01-01-gone", "d" * 64, 0.1)
    other = version._replace(digest="e" * 64)  # of the same name, and another one
    inputs = json.dumps(loan)
    made = [record(version=each, inputs=inputs) for each in (version, gone, gone, other)]
    append(ledger.chain(), made)
    done = run("ledger", "export", "-o", "out.parquet", ledger=ledger.url)
    assert done.returncode == 0
    assert "2020-01-01-gone is not in the store: the inputs of its 2 decisions" in done.stderr
    assert f"{version.version} is not in the store: the inputs of its 1 decision are" in done.stderr
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["grade"] for row in rows] == ["D", None, None, None]
    assert [row["inputs"] for row in rows] == [inputs] * 4


class Definitions(Store):
    """A store that has definitions of versions, and nothing else of them."""

    def __init__(self, definitions: dict[str, Definition]) -> None:
        super().__init__(Path("nowhere"))
        self._definitions = definitions

    def read(self, version: str) -> Any:
        if version not in self._definitions:
            raise StoreError("no such version")
        return None, "f" * 64

    def definition(self, version: str) -> Definition:
        return self._definitions[version]


def definition(**kinds: str) -> Definition:
    fields = "".join(
        f'[[field]]\nname = "{name}"\nkind = "{kind}"\nlabel = "x"\n'
        for name, kind in kinds.items()
    )
    label = '[label]\ncolumn = "is_late"\nlate = 1\non_time = 0\n'
    return parse_definition(f'model = "m"\n{label}{fields}', "here")


def test_a_field_of_several_kinds_is_text_and_one_of_the_export_s_names_has_a_prefix(
    ledger: Ledger, tmp_path: Path
) -> None:
    one, two = (Version(name, "f" * 64, 0.1) for name in ("one", "two"))
    store = Definitions(
        {
            "one": definition(size="number", source="category", time="whole", left="number"),
            "two": definition(size="category", source="category", more="number"),
        }
    )
    given = (
        (one, {"size": 1.5, "source": "web", "time": 3, "left": True, "more": "ignored"}),
        (two, {"size": "big", "source": None, "left": 10**400, "more": 2}),
    )
    append(ledger.chain(), [record(version=v, inputs=json.dumps(each)) for v, each in given])
    path = tmp_path / "out.parquet"
    assert export(ledger.database, store, path).unknown == {}
    columns = ("size", "input.source", "input.time", "left", "more", "source")
    assert [[row[name] for name in columns] for row in rows_of(path)] == [
        ["1.5", "web", 3.0, None, None, "api"],
        ["big", None, None, None, 2.0, "api"],
    ]


def test_a_loan_that_is_only_nearly_json_is_written_too(
    run: Run, ledger: Ledger, version: Version, loan: dict[str, Any], tmp_path: Path
) -> None:
    """As it is taken where the version does not look."""
    inputs = json.dumps(loan | {"extra": float("nan"), "more": "\ud800"})
    append(ledger.chain(), [record(version=version, inputs=inputs)])
    done = run("ledger", "export", "-o", "out.parquet", ledger=ledger.url)
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path / "out.parquet")
    assert (row["inputs"], row["grade"]) == (inputs, "D")


def test_many_decisions_are_joined_with_their_challenger_scores_and_outcomes(
    ledger: Ledger, tmp_path: Path
) -> None:
    made = [record() for _ in range(500)]
    append(ledger.chain(), made)
    with ledger.database.writing() as connection:
        for i, each in enumerate(made):
            key = UUID(bytes=each.id)
            if i % 3 == 0:
                row = {"decision_id": key, "version": 1 + i % 2, "probability": i / 1000}
                connection.execute(insert(tables.challenges).values(row))
        for i, each in reversed(list(enumerate(made))):
            for late in [True] * (i % 5 == 0) + [False] * (i % 10 == 0):
                row = {"decision_id": UUID(bytes=each.id), "late": late}
                row |= {"observed": i, "recorded_ms": 0, "caller": "app"}
                connection.execute(insert(tables.outcomes).values(row))
        rows = connection.execute(select(tables.versions))
        names = {each.number: each.version for each in rows}
    shares: list[float] = []
    path = tmp_path / "out.parquet"
    done = export(ledger.database, Definitions({}), path, progress=shares.append, batch_rows=70)
    assert (done.rows, done.outcomes) == (500, 100)
    assert shares == sorted(shares)
    assert len(shares) == 8
    assert shares[-1] == 1
    for i, (row, each) in enumerate(zip(rows_of(path), made, strict=True)):
        assert row["id"] == uuid7.text(each.id)
        assert row["challenger_probability"] == (i / 1000 if i % 3 == 0 else None)
        assert row["challenger_version"] == (names[1 + i % 2] if i % 3 == 0 else None)
        assert row["outcome"] == (i % 10 != 0 if i % 5 == 0 else None)
        assert (row["outcome_date"] is None) == (i % 5 != 0)


def test_an_export_that_fails_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    append(ledger.chain(), [record()])

    def fail(_: float) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        export(ledger.database, Definitions({}), folder / "x.parquet", progress=fail)
    assert list(folder.iterdir()) == []


def test_a_file_that_can_t_be_written_is_refused(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "there.parquet").write_text("mine")
    for out, why in (
        ("there.parquet", "already exists"),
        ("x.xlsx", "expected a name that ends in .csv, .csv.gz, .parquet"),
        ("nowhere/x.parquet", "no such folder"),
    ):
        done = run("ledger", "export", "-o", out, ledger=ledger.url)
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr
        assert "Traceback" not in done.stderr
    assert (tmp_path / "there.parquet").read_text() == "mine"
    done = run("ledger", "export", "-o", "x.parquet", "--since", "yesterday", ledger=ledger.url)
    assert (done.returncode, "--since" in done.stderr) == (2, True)


def test_a_store_that_is_not_there_names_every_version(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    append(ledger.chain(), [record(), record()])
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    done = run("ledger", "export", "-o", "x.parquet", ledger=ledger.url)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is not in the store") == 2


def test_formulas_are_made_harmless_only_if_it_is_asked_to(
    run: Run, ledger: Ledger, version: Version, loan: dict[str, Any], tmp_path: Path
) -> None:
    name = next(name for name, value in loan.items() if isinstance(value, str))
    kept = record(ms(DAY), version=version, inputs=json.dumps(loan | {name: "=1+1"}))
    append(ledger.chain(), [kept])
    for option, expected in (([], "=1+1"), (["--spreadsheet-safe"], "'=1+1")):
        done = run("ledger", "export", "-o", "out.csv", "--overwrite", *option, ledger=ledger.url)
        assert done.returncode == 0, done.stderr
        (row,) = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text("utf-8"), newline=""))
        assert row[name] == expected
    done = run("ledger", "export", "-o", "out.parquet", "--spreadsheet-safe", ledger=ledger.url)
    assert done.returncode == 1
    assert "--spreadsheet-safe is for .csv and .csv.gz alone" in done.stderr
