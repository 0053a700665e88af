"""The writer's thread keeps what it can, whatever befalls it."""

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
from peerloan.ledger.write import group_commit as writer_module
from peerloan.ledger.write.entries import Result
from peerloan.ledger.write.group_commit import CommitResult, Committed, LedgerWriter
from peerloan.uuid7 import IdGenerator


def decision(loan_id: str) -> Callable[[IdGenerator], Entry]:
    """What makes a decision on a loan."""
    version = Version("first-000000000000", "0" * 64, 0.02)

    def make(ids: IdGenerator) -> Entry:
        values = (1.0, 0.01, False, 1, "[]", None)
        return Entry([Record(ids.new(), version, "api", "", "test", None, loan_id, "{}", *values)])

    return make


class Told:
    """What became of an entry."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._outcome: CommitResult = None

    def __call__(self, outcome: CommitResult) -> None:
        self._outcome = outcome
        self._known.set()

    def outcome(self) -> CommitResult:
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
def writer_on(database: Database, tmp_path: Path) -> Iterator[Callable[..., LedgerWriter]]:
    """Make a writer, which is closed after the test."""
    made = []

    def make(committed: Callable[[Committed], None] = lambda _: None) -> LedgerWriter:
        made.append(LedgerWriter(database, lambda: Seal(tmp_path / "seal"), committed))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def test_the_head_follows_the_records_again_and_again(
    database: Database, writer_on: Callable[..., LedgerWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that are cut off after the newest head can't be missed, so it must be recent."""
    monkeypatch.setattr(writer_module, "HEAD_MS", 100)
    writer = writer_on()
    for count in (1, 2, 3):
        answer = Told()
        writer.put(decision(f"loan-{count}"), answer)
        assert answer.outcome() is None
        deadline = time.monotonic() + 30
        while (seq := head_seq(database)) != count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seq == count


def head_seq(database: Database) -> int:
    """How many records the only chain's head counts."""
    with database.reading() as connection:
        return int(connection.execute(select(tables.chains.c.head_seq)).scalar_one())


def test_who_counts_commits_can_not_end_it(
    database: Database, writer_on: Callable[..., LedgerWriter]
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
    database: Database, writer_on: Callable[..., LedgerWriter]
) -> None:
    writer = writer_on()
    told = {loan_id: Told() for loan_id in ("zeroth", "first", "\ud800", "last")}
    with holding(database):
        for loan_id, each in told.items():
            writer.put(decision(loan_id), each)
    assert isinstance(told.pop("\ud800").outcome(), RecordRefused)
    assert [each.outcome() for each in told.values()] == [None] * 3


def test_a_transaction_is_bounded_by_bytes_as_well_as_by_decisions(
    database: Database, writer_on: Callable[..., LedgerWriter]
) -> None:
    def large(make: Callable[[IdGenerator], Entry], ids: IdGenerator) -> Entry:
        return make(ids)._replace(size=5_000_000)

    committed: list[Committed] = []
    writer = writer_on(committed.append)
    told = [Told() for _ in range(9)]
    with holding(database):
        for i, each in enumerate(told):
            writer.put(partial(large, decision(f"{i}")), each)
    assert [each.outcome() for each in told] == [None] * 9
    assert max(each.entries for each in committed) <= 4
    assert sum(each.decisions for each in committed) == 9


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


def test_who_asks_again_at_once_shares_a_commit(
    writer_on: Callable[..., LedgerWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "PATIENCE_SHARE", 1e6)
    monkeypatch.setattr(writer_module, "MOST_PATIENCE_SECONDS", 4.0)
    commits: list[int] = []
    writer = writer_on(lambda done: commits.append(done.entries))
    callers, rounds = 4, 10
    begin = threading.Barrier(callers)

    def ask() -> None:
        begin.wait()
        for _ in range(rounds):
            told = Told()
            writer.put(decision("again"), told)
            assert told.outcome() is None

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(commits) == callers * rounds
    # The first commits may part them; who was answered is waited for from then on.
    assert commits.count(callers) >= rounds - 3


def test_a_closed_writer_has_kept_everything_and_ends_its_threads(
    database: Database, writer_on: Callable[..., LedgerWriter]
) -> None:
    before = set(threading.enumerate())
    writer = writer_on()
    told = [Told() for _ in range(20)]
    for i, each in enumerate(told):
        writer.put(decision(f"{i:02d}"), each)
    begun = set(threading.enumerate()) - before
    assert {thread.name for thread in begun} == {"ledger", "ledger-clock"}
    writer.close()
    assert [each.outcome() for each in told] == [None] * 20
    url = database.url.render_as_string(hide_password=False)
    assert [loan_id for *_, loan_id in rows(url)] == [f"{i:02d}" for i in range(20)]
    assert not writer.runs
    for thread in begun:
        thread.join(20)
        assert not thread.is_alive(), thread.name


def test_who_comes_alone_after_many_is_kept_nevertheless(
    writer_on: Callable[..., LedgerWriter],
) -> None:
    writer = writer_on()
    many = [Told() for _ in range(8)]
    for told in many:
        writer.put(decision("many"), told)
    assert [told.outcome() for told in many] == [None] * 8
    alone = Told()
    writer.put(decision("alone"), alone)
    assert alone.outcome() is None


def test_more_than_it_can_keep_in_time_is_no_fault_of_the_database(
    database: Database, writer_on: Callable[..., LedgerWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(writer_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(
        writer_module, "MOST_DECISIONS", 1
    )  # each entry has a transaction of its own
    append = Chain.append

    def slowly(self: Chain, entries: Sequence[Entry]) -> list[Result]:
        time.sleep(0.3)
        return append(self, entries)

    monkeypatch.setattr(Chain, "append", slowly)
    writer = writer_on()
    many = [Told() for _ in range(12)]
    for i, told in enumerate(many):
        writer.put(decision(f"{i:02d}"), told)
    outcomes = [told.outcome() for told in many]
    late = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, LedgerUnavailable)]
    assert late, "the last of them waited longer than the limit"
    assert outcomes[: late[0]] == [None] * late[0]
    assert writer.unavailable_reason is None
    told = Told()
    writer.put(decision("afterwards"), told)
    assert told.outcome() is None
    url = database.url.render_as_string(hide_password=False)
    kept = {loan_id for *_, loan_id in rows(url)}
    answered = {f"{i:02d}" for i in range(12) if i not in late}
    # Of those that were told, one may have been on its way already.
    assert answered | {"afterwards"} <= kept
    assert len(kept - answered) <= 2


def test_a_thread_that_can_not_begin_is_tried_again(
    writer_on: Callable[..., LedgerWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_on()
    for name in ("ledger-clock", "ledger"):
        with monkeypatch.context() as patched:
            begin = threading.Thread.start

            def start(self: threading.Thread, name: str = name, begin: Any = begin) -> None:
                if self.name == name:
                    raise RuntimeError("can't start new thread")
                begin(self)

            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError):
                writer.put(decision("refused"), Told())
    told = Told()
    writer.put(decision("kept"), told)
    assert told.outcome() is None


@pytest.mark.parametrize("many", [1, 7, 8, 9, 23, 64, 65, 200])
def test_so_many_at_once_are_kept_in_their_order(
    database: Database, tmp_path: Path, many: int
) -> None:
    chain, ids = Chain(database, Seal(tmp_path / "seal")), IdGenerator()
    names = [f"{i:03d}" for i in range(many)]
    assert chain.append([decision(name)(ids) for name in names]) == [None] * many
    chain.close()
    url = database.url.render_as_string(hide_password=False)
    assert [loan_id for *_, loan_id in rows(url)] == names
