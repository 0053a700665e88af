"""`peerloan ledger upgrade`, and which releases may write to which tables."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Double, Integer, MetaData, Table, insert, inspect, select

from helpers.commands import Run
from helpers.postgres import Postgres
from peerloan.database import Database, LedgerError, compatibility
from peerloan.database import tables as schema
from peerloan.ledger import Version, challenger_scores
from peerloan.ledger.challenger_scores import (
    ScoredByChallenger,
    read_challenger_scores,
    store_challenger_scores,
)
from peerloan.uuid7 import IdGenerator


def newer(database: Database, admits: str) -> None:
    """As a newer release leaves the tables."""
    row = {
        "number": schema.NEWEST_MIGRATION + 1,
        "admits": admits,
        "release": "9.9.9",
        "applied_ms": 0,
    }
    with database.writing() as connection:
        connection.execute(insert(schema.migrations).values(row))


def test_an_upgrade_makes_the_tables_and_a_second_one_changes_nothing(
    run: Run, ledger_url: str
) -> None:
    first = run("ledger", "upgrade", ledger=ledger_url)
    assert (first.returncode, first.stderr.count("migrations applied: 1")) == (0, 1)
    second = run("ledger", "upgrade", ledger=ledger_url)
    assert (second.returncode, second.stderr.count("nothing to do")) == (0, 1)
    database = Database(ledger_url)
    database.check()
    assert tables(database).issuperset(schema.metadata.tables)


def test_the_migrations_make_the_tables_that_the_release_knows(run: Run, ledger_url: str) -> None:
    run("ledger", "upgrade", ledger=ledger_url)
    found = inspect(Database(ledger_url).engine)
    for table in schema.metadata.tables.values():
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert list(columns) == [column.name for column in table.columns]
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, (table.name, column.name)
        indexes = {index["name"]: index["column_names"] for index in found.get_indexes(table.name)}
        for index in table.indexes:
            assert indexes[index.name] == [column.name for column in index.columns]
        keys = found.get_pk_constraint(table.name)["constrained_columns"]
        assert keys == [column.name for column in table.primary_key.columns]


def test_months_ahead_have_partitions(run: Run, postgres: Postgres) -> None:
    url = postgres.new()
    run("ledger", "upgrade", ledger=url)
    assert sum(name.startswith("decisions_2") for name in tables(Database(url))) == 13


def test_a_month_that_was_not_made_in_time_stays_where_its_decisions_are(
    run: Run, postgres: Postgres
) -> None:
    url = postgres.new()
    run("ledger", "upgrade", ledger=url)
    database = Database(url)
    this = min(name for name in tables(database) if name.startswith("decisions_2"))
    decision: dict[str, Any] = {
        "id": UUID(bytes=IdGenerator().new()),
        "time_ms": 0,
        "chain": 1,
        "seq": 1,
    }
    decision |= {"version": 1, "digest": b"", "mac": b""}
    with database.writing() as connection:
        connection.exec_driver_sql(f"DROP TABLE {this}")
        connection.execute(insert(schema.decisions).values(decision))
    again = run("ledger", "upgrade", ledger=url)
    assert (again.returncode, again.stderr.count("nothing to do")) == (0, 1), again.stderr
    assert this not in tables(Database(url))
    with database.reading() as connection:
        assert connection.execute(select(schema.decisions.c.id)).scalars().all() == [decision["id"]]


def tables(database: Database) -> set[str]:
    """The names of a database's tables."""
    return set(inspect(database.engine).get_table_names())


def test_a_newer_schema_that_admits_this_release_is_written_to(ledger_url: str) -> None:
    database = Database(ledger_url)
    database.upgrade()
    newer(database, admits="0.1.0")
    Database(ledger_url).prepare()
    assert Database(ledger_url).upgrade() == [], "it stays as the newer release made it"


def test_a_newer_schema_that_does_not_is_refused(ledger_url: str) -> None:
    database = Database(ledger_url)
    database.upgrade()
    newer(database, admits="0.2.0")
    with pytest.raises(
        LedgerError, match=r"needs release 0\.2\.0 or later; this is release 0\.1\.0"
    ):
        Database(ledger_url).prepare()


@pytest.mark.parametrize(
    ("release", "admits", "is_admitted"),
    [("0.10.0", "0.9.0", True), ("0.9.0", "0.10.0", False), ("10.0.0", "9.1.0", True)],
)
def test_releases_are_compared_as_numbers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    admits: str,
    is_admitted: bool,
) -> None:
    """As texts, 0.10.0 would come before 0.9.0."""
    monkeypatch.setattr(compatibility, "__version__", release)
    database = Database(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}")
    database.upgrade()
    newer(database, admits)
    refused = contextlib.nullcontext() if is_admitted else pytest.raises(LedgerError, match=admits)
    with refused:
        database.check()


OLD_CHALLENGES = Table(
    "challenges",
    MetaData(),
    Column("decision_id", schema.Id, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("probability", Double, nullable=False),
)


def test_the_release_before_goes_on_reading_and_writing(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables end with migration 2: it knows nothing of a challenger's margin."""
    made = [IdGenerator().new() for _ in range(2)]
    version = Version("v1", "digest", 0.05)
    database = Database(ledger_url)
    database.upgrade()
    store_challenger_scores(database, [ScoredByChallenger(made[0], version, 0.25, -1.1)])
    with monkeypatch.context() as release_before:
        release_before.setattr(schema, "NEWEST_MIGRATION", 2)
        release_before.setattr(challenger_scores, "challenges", OLD_CHALLENGES)
        old = Database(ledger_url)
        old.prepare()
        assert old.upgrade() == []
        with old.writing() as connection:
            row = {"decision_id": UUID(bytes=made[1]), "version": 1, "probability": 0.5}
            connection.execute(insert(OLD_CHALLENGES).values(row))
        with old.reading() as connection:
            rows = connection.execute(select(OLD_CHALLENGES).order_by("probability")).all()
        assert [(row.version, row.probability) for row in rows] == [(1, 0.25), (1, 0.5)]
    with database.reading() as connection:
        scores = read_challenger_scores(connection, made)
    assert [scores[each].margin for each in made] == [-1.1, 0.0], "an older row: of the probability"


def test_an_empty_postgresql_is_refused_with_the_command_to_run(ledger_url: str) -> None:
    if ledger_url.startswith("sqlite"):
        Database(ledger_url).prepare()  # it is made at the first start
        return
    with pytest.raises(LedgerError, match="run: peerloan ledger upgrade"):
        Database(ledger_url).prepare()


def test_workers_that_start_together_create_one_ledger(tmp_path: Path) -> None:
    for number in range(5):
        file = tmp_path / f"{number}.db"
        first, second = Database(f"sqlite:///{file}"), Database(f"sqlite:///{file}")
        with ThreadPoolExecutor(1) as other:
            creating = other.submit(first.prepare)
            while not file.exists():
                pass
            second.prepare()  # the file exists, its tables not yet
            creating.result()
        second.check()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ledger.db", "the database's URL can't be parsed"),
        ("nosuch://x/y", "the database's URL can't be parsed"),
        ("mysql://x/y", "expected a URL of sqlite or postgresql"),
        ("sqlite://", "expected the path of a file"),
    ],
)
def test_what_is_no_ledger_s_url_is_refused(run: Run, url: str, why: str) -> None:
    done = run("ledger", "upgrade", ledger=url)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_stands_in_a_file_and_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    database = Database("postgresql://peerloan@127.0.0.1:1/ledger", path)
    assert database.url.password == "secret"
    assert "secret" not in str(database)
    with pytest.raises(LedgerError, match="the password can't be read"):
        Database("postgresql://peerloan@127.0.0.1/ledger", tmp_path / "nothing")


def test_a_database_that_is_not_there_is_named(run: Run) -> None:
    done = run("ledger", "upgrade", ledger="postgresql://peerloan@127.0.0.1:1/ledger")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr or "connection failed" in done.stderr
    assert "Traceback" not in done.stderr
