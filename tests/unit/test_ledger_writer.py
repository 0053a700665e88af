"""The writer's thread keeps what it can, whatever befalls it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger_load import rows
from peerloan.ledger import Database, Entry, Ids, Record, RecordRefused, Seal, Version
from peerloan.ledger.writer import Committed, Outcome, Writer


def decision(loan_id: str) -> Callable[[Ids], Entry]:
    """What makes a decision on a loan."""
    version = Version("first-000000000000", "0" * 64, 0.02)

    def make(ids: Ids) -> Entry:
        values = (1.0, 0.01, False, 1, "[]", None)
        return Entry([Record(ids.new(), version, "api", "", "test", None, loan_id, "{}", *values)])

    return make


class Told:
    """What became of an entry."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._outcome: Outcome = None

    def __call__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._known.set()

    def outcome(self) -> Outcome:
        """Wait for it."""
        assert self._known.wait(20), "never told"
        return self._outcome


@pytest.fixture
def database(ledger_url: str) -> Database:
    """A ledger."""
    made = Database(ledger_url)
    made.upgrade()
    return made


@pytest.fixture
def writer_on(database: Database, tmp_path: Path) -> Callable[..., Writer]:
    """Make a writer."""

    def make(committed: Callable[[Committed], None] = lambda _: None) -> Writer:
        return Writer(database, lambda: Seal(tmp_path / "seal"), committed)

    return make


def test_who_counts_commits_can_not_end_it(
    database: Database, writer_on: Callable[..., Writer]
) -> None:
    def committed(_: Committed) -> None:
        raise OSError("no space left for figures")

    writer = writer_on(committed)
    for loan_id in ("first", "second"):
        told = Told()
        writer.put(decision(loan_id), told)
        assert told.outcome() is None
    assert [
        loan_id for *_, loan_id in rows(database.url.render_as_string(hide_password=False))
    ] == ["first", "second"]


def test_a_value_that_no_driver_takes_is_refused_alone(
    database: Database, writer_on: Callable[..., Writer]
) -> None:
    writer = writer_on()
    told = {loan_id: Told() for loan_id in ("zeroth", "first", "\ud800", "last")}
    with holding(database):
        for loan_id, each in told.items():
            writer.put(decision(loan_id), each)
    assert isinstance(told.pop("\ud800").outcome(), RecordRefused)
    assert [each.outcome() for each in told.values()] == [None] * 3


@contextlib.contextmanager
def holding(database: Database) -> Iterator[None]:
    """Let the writer wait, so that what it is given meanwhile is one batch."""
    if not database.is_sqlite:
        with database.writing() as connection:
            connection.exec_driver_sql("LOCK TABLE chains IN EXCLUSIVE MODE")
            yield
        return
    with contextlib.closing(sqlite3.connect(database.file)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
