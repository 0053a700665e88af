"""The writer's thread stores all it can and notifies every caller, whatever fails."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from helpers.ledger_load import rows
from peerloan.database import Database, LedgerUnavailable, RecordRefused, tables
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.ledger.write.entries import Result
from peerloan.ledger.write.group_commit import (
    CommitMetrics,
    CommitResult,
    LedgerWriter,
    WriterLimits,
)
from peerloan.uuid7 import IdGenerator


def decision(loan_id: str) -> Callable[[IdGenerator], Entry]:
    """Return a function that makes an entry with one decision on a loan."""
    version = Version("first-000000000000", "0" * 64, 0.02)

    def make(ids: IdGenerator) -> Entry:
        values = (1.0, 0.01, False, 1, "[]", None)
        return Entry([Record(ids.new(), version, "api", "", "test", None, loan_id, "{}", *values)])

    return make


class Caller:
    """A caller that waits for the result of its entry."""

    def __init__(self) -> None:
        self._notified = threading.Event()
        self._result: CommitResult = None

    def __call__(self, result: CommitResult) -> None:
        self._result = result
        self._notified.set()

    def result(self) -> CommitResult:
        """Wait for the result."""
        assert self._notified.wait(20), "the caller was never notified"
        return self._result


@pytest.fixture
def database(ledger_url: str) -> Database:
    """A ledger."""
    database = Database(ledger_url)
    database.upgrade()
    return database


@pytest.fixture
def make_writer(database: Database, tmp_path: Path) -> Iterator[Callable[..., LedgerWriter]]:
    """Make a writer, which is closed after the test."""
    writers = []

    def make(
        committed: Callable[[CommitMetrics], None] = lambda _: None, **limits: Any
    ) -> LedgerWriter:
        seal = partial(Seal, tmp_path / "seal")
        writers.append(LedgerWriter(database, seal, committed, WriterLimits(**limits)))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()


def test_the_head_follows_the_records_again_and_again(
    database: Database, make_writer: Callable[..., LedgerWriter]
) -> None:
    """Records that are cut off after the newest head can't be missed, so it must be recent."""
    writer = make_writer(head_seconds=0.1)
    for count in (1, 2, 3):
        caller = Caller()
        writer.put(decision(f"loan-{count}"), caller)
        assert caller.result() is None
        deadline = time.monotonic() + 30
        while (seq := head_seq(database)) != count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seq == count


def head_seq(database: Database) -> int:
    """Return how many records the only chain's head counts."""
    with database.reading() as connection:
        return int(connection.execute(select(tables.chains.c.head_seq)).scalar_one())


def stored_loans(database: Database) -> list[str]:
    """Return the loans' ids of all decisions in the ledger, in order."""
    url = database.url.render_as_string(hide_password=False)
    return [loan_id for *_, loan_id in rows(url)]


@contextlib.contextmanager
def write_lock(database: Database) -> Iterator[None]:
    """Hold a lock that the writer waits for, so that entries queued meanwhile are one batch."""
    if not database.is_sqlite:
        with database.writing() as connection:
            connection.exec_driver_sql("LOCK TABLE chains IN EXCLUSIVE MODE")
            yield
        return
    with contextlib.closing(sqlite3.connect(database.file)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_an_error_of_the_metrics_callback_does_not_end_the_writer(
    database: Database, make_writer: Callable[..., LedgerWriter]
) -> None:
    def committed(_: CommitMetrics) -> None:
        raise OSError("no space left for figures")

    writer = make_writer(committed)
    for loan_id in ("first", "second"):
        caller = Caller()
        writer.put(decision(loan_id), caller)
        assert caller.result() is None
    assert stored_loans(database) == ["first", "second"]


def test_a_value_that_no_driver_accepts_is_refused_alone(
    database: Database, make_writer: Callable[..., LedgerWriter]
) -> None:
    writer = make_writer()
    callers = {loan_id: Caller() for loan_id in ("zeroth", "first", "\ud800", "last")}
    with write_lock(database):
        for loan_id, caller in callers.items():
            writer.put(decision(loan_id), caller)
    assert isinstance(callers.pop("\ud800").result(), RecordRefused)
    assert [caller.result() for caller in callers.values()] == [None] * 3


def test_a_transaction_is_limited_by_bytes_as_well_as_by_decisions(
    database: Database, make_writer: Callable[..., LedgerWriter]
) -> None:
    def large(make: Callable[[IdGenerator], Entry], ids: IdGenerator) -> Entry:
        return make(ids)._replace(size=5_000_000)

    commits: list[CommitMetrics] = []
    writer = make_writer(commits.append)
    callers = [Caller() for _ in range(9)]
    with write_lock(database):
        for i, caller in enumerate(callers):
            writer.put(partial(large, decision(f"{i}")), caller)
    assert [caller.result() for caller in callers] == [None] * 9
    assert max(commit.entries for commit in commits) <= 4
    assert sum(commit.decisions for commit in commits) == 9


def test_callers_that_repeat_at_once_share_a_commit(
    make_writer: Callable[..., LedgerWriter],
) -> None:
    commits: list[int] = []
    writer = make_writer(
        lambda commit: commits.append(commit.entries), gather_share=1e6, max_gather_seconds=4.0
    )
    clients, rounds = 4, 10
    begin = threading.Barrier(clients)

    def ask() -> None:
        begin.wait()
        for _ in range(rounds):
            caller = Caller()
            writer.put(decision("again"), caller)
            assert caller.result() is None

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(commits) == clients * rounds
    # The first commits may separate them; after these the writer waits for all of them.
    assert commits.count(clients) >= rounds - 3


def test_a_closed_writer_has_stored_everything_and_ends_its_threads(
    database: Database, make_writer: Callable[..., LedgerWriter]
) -> None:
    before = set(threading.enumerate())
    writer = make_writer()
    callers = [Caller() for _ in range(20)]
    for i, caller in enumerate(callers):
        writer.put(decision(f"{i:02d}"), caller)
    threads = set(threading.enumerate()) - before
    assert {thread.name for thread in threads} == {"ledger", "ledger-clock"}
    writer.close()
    assert [caller.result() for caller in callers] == [None] * 20
    assert stored_loans(database) == [f"{i:02d}" for i in range(20)]
    assert not writer.is_running
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), thread.name


def test_a_single_entry_after_many_is_stored(make_writer: Callable[..., LedgerWriter]) -> None:
    writer = make_writer()
    callers = [Caller() for _ in range(8)]
    for caller in callers:
        writer.put(decision("many"), caller)
    assert [caller.result() for caller in callers] == [None] * 8
    alone = Caller()
    writer.put(decision("alone"), alone)
    assert alone.result() is None


def test_too_many_entries_do_not_count_as_a_fault_of_the_database(
    database: Database, make_writer: Callable[..., LedgerWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Chain.append

    def append_slowly(self: Chain, entries: Sequence[Entry]) -> list[Result]:
        time.sleep(0.3)
        return append(self, entries)

    monkeypatch.setattr(Chain, "append", append_slowly)
    # Each entry has a separate transaction.
    writer = make_writer(commit_seconds=1.0, check_seconds=0.05, max_decisions=1)
    callers = [Caller() for _ in range(12)]
    for i, caller in enumerate(callers):
        writer.put(decision(f"{i:02d}"), caller)
    results = [caller.result() for caller in callers]
    late = [i for i, result in enumerate(results) if isinstance(result, LedgerUnavailable)]
    assert late, "the last of them waited longer than the limit"
    assert results[: late[0]] == [None] * late[0]
    assert writer.unavailable_reason is None
    caller = Caller()
    writer.put(decision("afterwards"), caller)
    assert caller.result() is None
    stored = set(stored_loans(database))
    confirmed = {f"{i:02d}" for i in range(12) if i not in late}
    # The commit of a late entry may have been in progress already.
    assert confirmed | {"afterwards"} <= stored
    assert len(stored - confirmed) <= 2


def test_a_thread_that_can_not_start_is_tried_again(
    make_writer: Callable[..., LedgerWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer()
    for name in ("ledger-clock", "ledger"):
        with monkeypatch.context() as patched:
            start = threading.Thread.start

            def fail(self: threading.Thread, name: str = name, start: Any = start) -> None:
                if self.name == name:
                    raise RuntimeError("can't start new thread")
                start(self)

            patched.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError):
                writer.put(decision("refused"), Caller())
    caller = Caller()
    writer.put(decision("stored"), caller)
    assert caller.result() is None


@pytest.mark.parametrize("count", [1, 7, 8, 9, 23, 64, 65, 200])
def test_entries_of_one_transaction_are_stored_in_order(
    database: Database, tmp_path: Path, count: int
) -> None:
    chain, ids = Chain(database, Seal(tmp_path / "seal")), IdGenerator()
    names = [f"{i:03d}" for i in range(count)]
    assert chain.append([decision(name)(ids) for name in names]) == [None] * count
    chain.close()
    assert stored_loans(database) == names
