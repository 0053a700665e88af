"""The clock is set ahead and back under a service: no decision stays ahead of it for long, and
whoever looks is told.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import delete, select

from helpers.ledgers import Ledger, record
from helpers.service import Serve
from helpers.stores import VersionOf
from peerloan.database import Database, tables
from peerloan.ledger import BatchWriter, Entry, Seal
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.write.group_commit import CommitResult, LedgerWriter
from peerloan.registry import Store
from peerloan.uuid7 import IdGenerator

DAY_SECONDS, HOUR_NS = 86_400, 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
# A process whose clock is as far ahead as a file says: what Python imports first.
CLOCK = """
import os, time

real, path = time.time_ns, os.environ["CLOCK_FILE"]

def ahead():
    with open(path) as file:
        return real() + int(float(file.read() or 0) * 1e9)

time.time_ns = ahead
"""


class Clock:
    """The clock of the processes that a test starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "ahead"
        self.set(0)
        (folder / "sitecustomize.py").write_text(CLOCK)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.setenv("CLOCK_FILE", str(self._file))

    def set(self, seconds: float) -> None:
        """Set it so far ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)
        self._ahead = seconds

    def seconds_ahead(self, decision: str) -> float:
        """How far ahead of it a decision is dated, by its id."""
        return int(decision.replace("-", "")[:12], 16) / 1000 - time.time() - self._ahead


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    folder = tmp_path / "clock"
    folder.mkdir()
    return Clock(folder, monkeypatch)


def chains_of(database: Database) -> list[tuple[int, int]]:
    """The chain and the number in it of each decision, in the order in which they were kept."""
    table = tables.decisions
    with database.reading() as connection:
        rows = select(table.c.chain, table.c.seq).order_by(table.c.chain, table.c.seq)
        return [(chain, seq) for chain, seq in connection.execute(rows)]


def test_decisions_are_dated_by_the_clock_again_once_it_is_set_right(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    loan: dict[str, Any],
    tmp_path: Path,
    clock: Clock,
) -> None:
    store.promote(version_of("additive"))
    service = serve(store)

    def ask(key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        url = f"{service.url}/v1/predictions"
        return requests.post(url, json=loan, headers=headers, timeout=20).json()["id"]

    def told() -> str | None:
        found: str | None = requests.get(f"{service.url}/readyz", timeout=5).json().get("clock")
        return found

    made = [ask(), ask("before")]
    assert told() is None
    clock.set(3 * DAY_SECONDS)
    made += [ask(), ask("ahead")]
    assert abs(clock.seconds_ahead(made[-1])) < 10
    assert told() is None
    clock.set(0)
    made += [ask() for _ in range(3)]
    assert [abs(clock.seconds_ahead(each)) < 10 for each in made[-3:]] == [True] * 3
    assert re.search(r"decisions are dated up to 259,\d{3} s ahead", told() or "")
    assert ask("ahead") == made[3], "a key is remembered"
    service.wait_for(lambda: "the clock was set back by" in service.log.read_text())
    log = service.log.read_text()
    assert log.count("the clock was set back by 259,") == 1
    assert "opening a new chain" in log
    clock.set(3 * DAY_SECONDS + 60)
    service.wait_for(lambda: told() is None)
    service.wait_for(lambda: "the clock has caught up" in service.log.read_text())
    # A small step back: within a chain ids must rise, and for so long they are ahead.
    made.append(ask())
    clock.set(3 * DAY_SECONDS + 40)
    made += [ask(), ask()]
    assert all(15 < clock.seconds_ahead(each) < 25 for each in made[-2:])
    assert re.search(r"decisions are dated up to 1\d s ahead", told() or "")
    service.stop()
    database = Database(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}")
    seqs = chains_of(database)
    assert seqs == [(1, seq) for seq in range(1, 5)] + [(2, seq) for seq in range(1, 7)]
    assert len(set(made)) == len(made) == len(seqs)
    assert verify(database, Seal(tmp_path / "peerloan-seal")).findings.shown() == []


def test_a_book_that_is_being_recorded_goes_on_in_a_new_chain(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(ledger_url, tmp_path)
    ids, true = IdGenerator(), time.time_ns
    with BatchWriter(ledger.database, ledger.seal, "somebody") as recorder:
        for days in (0, 3, 0, 0):
            monkeypatch.setattr(time, "time_ns", lambda days=days: true() + days * DAY_NS)
            recorder.put([record(id=each) for each in ids.many(5)])
        recorder.finish()
    seqs = chains_of(ledger.database)
    assert seqs == [(chain, seq) for chain in (1, 2) for seq in range(1, 11)]
    assert verify(ledger.database, ledger.seal).findings.shown() == []


def test_what_waits_for_a_commit_when_the_clock_is_set_back_is_kept(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions of before and after it wait together: each chain gets its own, and all are told."""
    ledger = Ledger(ledger_url, tmp_path)
    true, outcomes, kept = time.time_ns, list[CommitResult](), threading.Semaphore(0)

    def told(outcome: CommitResult) -> None:
        outcomes.append(outcome)
        kept.release()

    writer = LedgerWriter(ledger.database, lambda: ledger.seal)
    with ledger.database.writing() as connection:
        connection.execute(delete(tables.aggregates))  # others wait for this one's end
        for hours in (1, 1, 0, 0, 5, 0):
            monkeypatch.setattr(time, "time_ns", lambda hours=hours: true() + hours * HOUR_NS)
            writer.put(lambda ids: Entry([record(id=ids.new())]), told)
    assert [kept.acquire(timeout=60) for _ in range(6)] == [True] * 6
    assert outcomes == [None] * 6
    writer.close()
    assert chains_of(ledger.database) == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1)]
    assert verify(ledger.database, ledger.seal).findings.shown() == []
