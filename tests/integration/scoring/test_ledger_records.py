"""`peerloan score --record`: a book's decisions are in the ledger before they are in a file."""

from __future__ import annotations

import csv
import hashlib
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
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from helpers.apps import create_app
from helpers.commands import Run
from helpers.csv_files import read_csv
from helpers.ledgers import url_of
from helpers.paths import FORMATS
from helpers.stores import VersionOf
from peerloan.book import BookError, open_book, open_writer
from peerloan.database import Database, tables
from peerloan.ledger import BatchWriter, Seal, StoredDecision
from peerloan.ledger.queries import find_decisions, stream_decisions
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.scoring.job import score_book
from peerloan.settings import Settings
from peerloan.uuid7 import text as id_text

# A scored book's columns behind its own.
ADDED = ["id", "probability", "late", "band", *(f"reason_{i}" for i in range(1, 5))]


@pytest.fixture
def database(ledger_url: str) -> Database:
    """A ledger: none yet in SQLite, which the command makes, and an empty one in PostgreSQL."""
    found = Database(ledger_url)
    if not found.is_sqlite:
        found.upgrade()
    return found


def write_sample(path: Path, loans: int, scenario: str = "calm", seed: int = 11) -> Path:
    with open_writer(path, SCHEMA) as writer:
        for batch in batches(loans, seed, scenario):
            writer.write(batch)
    return path


def kept_in(database: Database) -> list[StoredDecision]:
    return list(itertools.chain.from_iterable(stream_decisions(database)))


def rows_in(database: Database) -> int:
    if database.is_sqlite and not database.file.exists():
        return 0
    with database.reading() as connection:
        rows = select(func.count()).select_from(tables.decisions)
        return int(connection.execute(rows).scalar_one())


def lender(folder: Path, kind: str, **roles: str) -> str:
    """The test's store with the tiny version of a kind as its champion, perhaps with more roles."""
    source = next(p for p in (FORMATS / f"format-1-{kind}").iterdir() if p.is_dir())
    store = Store(folder / "store")
    target = store.root / "versions" / source.name
    shutil.copytree(source, target)
    definition = json.loads((target / "loan.json").read_bytes())
    definition["roles"] |= roles
    content = json.dumps(definition).encode()
    (target / "loan.json").write_bytes(content)
    manifest = json.loads((target / "manifest.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"]["loan.json"] = {"bytes": len(content), "sha256": digest}
    (target / "manifest.json").write_text(json.dumps(manifest))
    store.promote(source.name)
    return source.name


@pytest.mark.parametrize("candidate", ["additive", "basic"])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_what_is_recorded_is_what_the_service_would_keep(
    store: Store,
    version_of: VersionOf,
    database: Database,
    run: Run,
    tmp_path: Path,
    candidate: str,
    ending: str,
) -> None:
    version = version_of(candidate)
    store.promote(version)
    # With rates that were never seen, of which there are warnings.
    write_sample(tmp_path / f"in{ending}", 60, "rate-shock")
    out = f"out{ending}"
    done = run("score", f"in{ending}", "-o", out, "--record", "--json", ledger=url_of(database))
    assert done.returncode == 0, done.stderr
    request_id = json.loads(done.stdout)["request_id"]
    table: list[dict[str, Any]]
    if ending == ".parquet":
        table = pq.read_table(tmp_path / out).to_pylist()
    else:
        table = read_csv(tmp_path / out)
    assert list(table[0]) == [*SCHEMA.names, *ADDED, "model_version"]
    recorded = kept_in(database)
    assert [id_text(each.id) for each in recorded] == [row["id"] for row in table]
    client = create_app(
        Settings(store.root, tmp_path / "tokens", url_of(database)), on_loopback=True
    ).test_client()
    loans = [json.loads(each.inputs) for each in recorded]
    answer = client.post("/v1/predictions", json=loans).json
    assert answer is not None
    ids = [UUID(each["id"]).bytes for each in answer["predictions"]]
    answered = find_decisions(database, ids)
    for each, row, other in zip(recorded, table, ids, strict=True):
        assert (each.source, each.request_id, each.loan_id) == ("book", request_id, row["loan_id"])
        assert each.caller
        assert (each.probability, each.late) == (
            float(row["probability"]),
            row["late"] in (True, "true"),
        )
        message = [reason["sentence"] for reason in json.loads(each.reasons or "")]
        assert message == [row[f"reason_{i}"] for i in range(1, 5) if row[f"reason_{i}"]]
        same = ("version", "loan_id", "margin", "probability", "late", "band", "reasons")
        for name in (*same, "warnings"):
            assert getattr(each, name) == getattr(answered[other], name), name
        given = json.loads(each.inputs)
        assert all(isinstance(given[name], float) for name in ("loan_amnt", "int_rate"))
    assert any("outside the range" in (each.warnings or "") for each in recorded)
    replayed = json.loads(run("replay", "--json", ledger=url_of(database)).stdout)
    assert replayed["identical"] == replayed["decisions"] == 120


@pytest.mark.parametrize("kind", ["scorecard", "onnx"])
def test_ids_roles_and_nothing_are_recorded_as_they_stand(
    tmp_path: Path, database: Database, run: Run, kind: str
) -> None:
    lender(tmp_path, kind, date="day", exposure="amount")
    header = ["rating", "contract no.", "open loans", "Möbel", "income.monthly", "day", "amount"]
    lines = [
        ["A", "7", "-0", "lamp", "999.9999999999999", "2026-03-31", "12000.50"],
        ["B", "ü-8", "", "", "1e12", "", ""],
        ["C", "9", "-1", "lamp", "1000", "2026-03-31", "1"],
        ["A+", "", "3.0", 'a "big" lamp, red \\ <&>', "1500.50", "soon", "much"],
    ]
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    done = run("score", "in.csv", "-o", "out.csv", "--record", ledger=url_of(database))
    assert done.returncode == 1, "a row is rejected"
    assert "1 row could not be scored" in done.stderr
    recorded = kept_in(database)
    assert [id_text(each.id) for each in recorded] == [
        row["id"] for row in read_csv(tmp_path / "out.csv")
    ]
    assert [each.loan_id for each in recorded] == ["7", "ü-8", None]
    assert [json.loads(each.inputs) for each in recorded] == [
        {
            "income.monthly": 999.9999999999999,
            "open loans": 0.0,
            "Möbel": "lamp",
            "rating": "A",
            "contract no.": "7",
            "day": "2026-03-31",
            "amount": 12000.5,
        },
        {
            "income.monthly": 1e12,
            "open loans": None,
            "Möbel": None,
            "rating": "B",
            "contract no.": "ü-8",
            "day": None,
            "amount": None,
        },
        {
            "income.monthly": 1500.5,
            "open loans": 3.0,
            "Möbel": 'a "big" lamp, red \\ <&>',
            "rating": "A+",
            "contract no.": None,
            "day": "soon",
            "amount": "much",
        },
    ]
    done = run("replay", ledger=url_of(database))
    assert (done.returncode, done.stdout) == (
        0,
        "3 of 3 decisions are identical, bit for bit\n",
    ), done.stderr


def test_of_a_cell_that_is_too_long_nothing_is_recorded(
    tmp_path: Path, database: Database, run: Run
) -> None:
    lender(tmp_path, "scorecard", date="day")
    header = ["rating", "contract no.", "open loans", "Möbel", "income.monthly", "day"]
    long = "x" * 100_000
    lines = [
        ["A", "7", "1", "lamp", "1000", long],
        ["A", "8", "1", long, "1000", "2026-03-31"],
        ["A", long, "1", "lamp", "1000", "2026-03-31"],
    ]
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    done = run("score", "in.csv", "-o", "out.csv", "--record", ledger=url_of(database))
    assert done.returncode == 1, done.stderr
    rejects = read_csv(tmp_path / "out.csv.rejects")
    assert [(each["row"], each["field"]) for each in rejects] == [
        *(("2", "Möbel"), ("3", "contract no.")),
    ]
    assert all("1 to 200 characters" in each["expected"] for each in rejects)
    (kept,) = kept_in(database)
    assert json.loads(kept.inputs)["day"] is None
    assert (tmp_path / "out.csv.rejects").stat().st_size < 1_000


def test_a_loan_that_is_too_large_to_be_kept_stops_the_run_and_is_named(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only of a definition with hundreds of texts one can be."""
    version = lender(tmp_path, "scorecard")
    header = ["rating", "contract no.", "open loans", "Möbel", "income.monthly"]
    lines = [["A", "7", "1", "lamp", "1000"], ["A", "8", "1", "sofa" * 40, "1000"]]
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    database.prepare()
    monkeypatch.setattr("peerloan.scoring.ledger_records.MAX_LOAN_BYTES", 200)
    bundle = Store(tmp_path / "store").load(version)
    book, out = open_book(tmp_path / "in.csv"), tmp_path / "out.csv"
    expected = r"row 2, \(loan\): expected .* bytes of compact JSON, given 2"
    with (
        pytest.raises(BookError, match=expected),
        BatchWriter(database, Seal(tmp_path / "seal"), "tests") as recorder,
    ):
        score_book(book, bundle, out, recorder=recorder)
    assert not (tmp_path / "out.csv").exists()
    assert kept_in(database) == []


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_reasons_that_cost_time_are_recorded_only_if_wanted(
    store: Store,
    version_of: VersionOf,
    database: Database,
    run: Run,
    tmp_path: Path,
    candidate: str,
) -> None:
    store.promote(version_of(candidate))
    write_sample(tmp_path / "in.csv", 30)
    arguments = ("score", "in.csv", "-o", "out.csv", "--record", "--reasons", "none")
    assert run(*arguments, ledger=url_of(database)).returncode == 0
    assert all(row["reason_1"] == "" for row in read_csv(tmp_path / "out.csv"))
    told = {each.reasons is None for each in kept_in(database)}
    assert told == {candidate == "basic"}
    assert run("replay", ledger=url_of(database)).returncode == 0


@pytest.mark.longer
def test_a_second_run_makes_new_decisions_and_each_chain_is_closed(
    store: Store, version_of: VersionOf, database: Database, run: Run, tmp_path: Path
) -> None:
    store.promote(version_of("additive"))
    write_sample(tmp_path / "in.csv", 12_000)
    for _ in range(2):
        arguments = ("score", "in.csv", "-o", "out.csv", "--record", "--overwrite")
        done = run(*arguments, ledger=url_of(database))
        assert done.returncode == 0, done.stderr
        assert "recorded all of them in the ledger, with the request id " in done.stderr
    ids = [row["id"] for row in read_csv(tmp_path / "out.csv")]
    recorded = kept_in(database)
    assert [id_text(each.id) for each in recorded][12_000:] == ids
    assert len({each.request_id for each in recorded}) == 2
    with database.reading() as connection:
        chains = list(connection.execute(select(tables.chains)))
    assert [(each.head_seq, each.closed) for each in chains] == [(12_000, True)] * 2
    heads = [
        json.loads(path.read_bytes())
        for path in sorted((tmp_path / "peerloan-seal" / "heads").iterdir())
    ]
    assert [(each["seq"], each["closed"]) for each in heads] == [(12_000, True)] * 2
    done = run("replay", ledger=url_of(database))
    assert (done.returncode, "24000 of" in done.stdout.replace(",", "")) == (0, True)


def test_a_stopped_run_says_what_it_recorded(
    store: Store, version_of: VersionOf, database: Database, tmp_path: Path
) -> None:
    store.promote(version_of("additive"))
    write_sample(tmp_path / "in.csv", 200_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "peerloan", "score", "in.csv", "-o", "out.csv", "--record"],
        cwd=tmp_path,
        env=os.environ | {"PEERLOAN_STORE": str(store.root), "PEERLOAN_LEDGER": url_of(database)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if list(tmp_path.glob(".out.csv.*.part")) and rows_in(database):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert not list(tmp_path.glob("*out*")), "no part is left"
    count = rows_in(database)
    assert 0 < count < 200_000
    assert f"{count:,} decisions were recorded already" in told
    with database.reading() as connection:
        (chain,) = connection.execute(select(tables.chains))
    assert (chain.head_seq, chain.closed) == (count, True)


def test_a_ledger_that_can_not_be_reached_stops_the_run(
    store: Store, version_of: VersionOf, run: Run, tmp_path: Path
) -> None:
    store.promote(version_of("additive"))
    write_sample(tmp_path / "in.csv", 20)
    url = "postgresql://peerloan@127.0.0.1:1/ledger"
    done = run("score", "in.csv", "-o", "out.csv", "--record", ledger=url)
    assert done.returncode == 1
    assert "connection" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*out*"))


def test_a_ledger_that_can_not_be_written_to_stops_the_run(
    store: Store, version_of: VersionOf, ledger_url: str, run: Run, tmp_path: Path
) -> None:
    """Someone else holds what is written to, longer than it is waited for."""
    database = Database(ledger_url)
    database.upgrade()
    store.promote(version_of("additive"))
    write_sample(tmp_path / "in.csv", 20)
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("LOCK TABLE decisions IN EXCLUSIVE MODE")
        done = run("score", "in.csv", "-o", "out.csv", "--record", ledger=ledger_url)
    assert done.returncode == 1
    assert "lock" in done.stderr
    assert "the ledger" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*out*"))
    assert rows_in(database) == 0


def test_strictly_nothing_is_recorded_of_a_book_with_a_bad_row(
    store: Store, version_of: VersionOf, database: Database, run: Run, tmp_path: Path
) -> None:
    store.promote(version_of("additive"))
    write_sample(tmp_path / "in.csv", 12_000)
    with (tmp_path / "in.csv").open("a") as file:
        file.write("x,-1,0.1,car,A,1,0.1,1 year,1,0,RENT,0\n")
    done = run("score", "in.csv", "-o", "out.csv", "--record", "--strict", ledger=url_of(database))
    assert done.returncode == 1
    assert "row 12001, loan_amnt" in done.stderr
    assert rows_in(database) == 0
    assert not list(tmp_path.glob("*out*"))


def test_a_book_with_a_column_of_the_ids_name_is_refused(
    store: Store, version_of: VersionOf, database: Database, run: Run, tmp_path: Path
) -> None:
    store.promote(version_of("additive"))
    write_sample(tmp_path / "in.csv", 20)
    text = (tmp_path / "in.csv").read_text().replace("is_late", "id", 1)
    (tmp_path / "in.csv").write_text(text)
    done = run("score", "in.csv", "-o", "out.csv", "--record", ledger=url_of(database))
    assert done.returncode == 1
    assert "has a column 'id' already" in done.stderr
    assert rows_in(database) == 0
    assert run("score", "in.csv", "-o", "out.csv", ledger=url_of(database)).returncode == 0
