"""Group commit: one thread of a process stores the decisions of all waiting requests at once.

A commit takes as long for thirty decisions as for one. So requests queue their decisions and are
notified once these are durable; other requests are served meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from peerloan.clock import now_ms
from peerloan.database.engine import Database
from peerloan.database.errors import (
    KeyInUse,
    LedgerError,
    LedgerUnavailable,
    RecordRefused,
    first_line,
)
from peerloan.ledger.retention import purge_expired_keys
from peerloan.ledger.seal import Seal
from peerloan.ledger.write.chain import SET_BACK, Chain
from peerloan.ledger.write.chain_opening import HEAD_MS
from peerloan.ledger.write.entries import Entry, Result
from peerloan.uuid7 import IdGenerator

log = logging.getLogger(__name__)
# Longest time that a request waits for its commit.
LIMIT_SECONDS = 8.0
# Limits of one transaction: decisions, and bytes of their loans.
MOST_DECISIONS, _MOST_BYTES = 10_000, 16_000_000
# The threads check the waiting entries and the database at least this often.
LOOK_SECONDS = 0.5
# If nothing was written for this long, check whether the database is available.
_IDLE_SECONDS = 2.0
# How long the first reader of `down` waits for the first check of the database.
_FIRST_SECONDS = 1.0
# Wait up to 25 % of the last commit (at most 1 ms) so that clients that were just answered can join
# the batch; don't wait if 16 entries are there already.
PATIENCE_SHARE, MOST_PATIENCE_SECONDS, _ENOUGH = 0.25, 0.001, 16
_FORGET_SECONDS = 600.0
# Smaller corrections of the clock are normal and not reported.
_AHEAD_MS = 1_000

CommitResult = Result | LedgerError
# Called with an entry's outcome in the writer's thread. It must be quick and raise nothing.
Told = Callable[[CommitResult], None]


class Committed(NamedTuple):
    """Metrics of a transaction: entries, decisions stored, and duration."""

    entries: int
    decisions: int
    seconds: float


class _Waiting:
    """A queued entry; its caller is notified once."""

    __slots__ = ("_told", "_turns", "entry", "since")

    def __init__(self, entry: Entry, told: Told) -> None:
        self.entry, self._told = entry, told
        self.since = time.monotonic()
        # Popping the only item is atomic: the writer and the timeout thread may both try.
        self._turns = [None]

    @property
    def told(self) -> bool:
        """Whether the caller was notified."""
        return not self._turns

    def tell(self, outcome: CommitResult) -> None:
        """Notify the caller, unless that was done before."""
        try:
            self._turns.pop()
        except IndexError:
            return
        try:
            self._told(outcome)
        except Exception:  # it must not end the thread that stores all decisions
            log.exception("a request could not be notified of its commit")


class LedgerWriter:
    """Stores entries in batches, in its own thread. Make one writer in each process.

    Thread safety: any thread may call every method and property. `make` runs with the writer's lock
    held, so it must be quick. `told` runs in one of the writer's threads.

    Ownership: the writer owns its threads, which start with the first entry, and its chain. It
    borrows the database. Its threads do not survive a fork. They end with `close`, or after the
    main thread once all queued entries are stored.

    Errors: `put` raises LedgerUnavailable while nothing can be stored. `told` gets the result, or
    LedgerUnavailable, RecordRefused or KeyInUse. An entry that gets LedgerUnavailable during its
    commit, such as after LIMIT_SECONDS, may be stored nevertheless; a retry with the same
    idempotency key finds it.
    """

    def __init__(
        self,
        database: Database,
        seal: Callable[[], Seal],
        committed: Callable[[Committed], None] = lambda _: None,
    ) -> None:
        self._database, self._seal, self._committed = database, seal, committed
        self._ids = IdGenerator()
        self._queue: deque[_Waiting] = deque()
        self._batch: list[_Waiting] = []
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake, self._all = threading.Event(), threading.Event()
        self._closed = threading.Event()
        self._expected, self._patience, self._gathers = 1, 0.0, False
        self._chain: Chain | None = None
        self._down: str | None = None
        # When the writer's thread last began a step, and last wrote to or checked the database.
        self._at = time.monotonic()
        self._looked_at = -_IDLE_SECONDS
        self._looked = threading.Event()

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be stored now; None if it can.

        After the first call the writer also checks the database while there is nothing to store.
        """
        if not self._looked.is_set():
            with self._turn:
                self._begin()
            self._wake.set()
            if not self._looked.wait(_FIRST_SECONDS):
                return self._down or "the database has not answered yet"
        return self._down

    @property
    def clock(self) -> str | None:
        """If the clock was set back: how far this process's decisions are dated ahead of it."""
        ahead_ms = self._ids.newest_ms - now_ms()
        if ahead_ms < _AHEAD_MS:
            return None
        seconds = f"{ahead_ms // 1000:,} s"
        return f"was set back by {seconds}: decisions are dated up to {seconds} ahead of it"

    @property
    def runs(self) -> bool:
        """Whether callers may still be notified; ends shortly after the main thread does."""
        if threading.main_thread().is_alive() and not self._closed.is_set():
            return True
        return self._thread is not None and self._thread.is_alive()

    def put(self, make: Callable[[IdGenerator], Entry], told: Told) -> None:
        """Queue the entry that `make` makes, with ids that rise from one entry to the next.

        `told` is called once, with the result or the error. Raises LedgerUnavailable at once while
        nothing can be stored.
        """
        if self._down is not None:
            raise LedgerUnavailable(self._down)
        with self._turn:
            self._begin()
            self._queue.append(_Waiting(make(self._ids), told))
        if not self._wake.is_set():
            self._wake.set()
        if self._gathers and len(self._queue) >= self._expected:
            self._all.set()

    def close(self) -> None:
        """Commit all queued entries, close the chain, end the threads. Don't call `put` again."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LIMIT_SECONDS)

    def _begin(self) -> None:
        """Start the threads if they don't run yet."""
        if self._thread is None:
            threading.Thread(target=self._watch, name="ledger-clock", daemon=True).start()
            # Explicitly no daemon (a daemon thread of a server would pass that on): queued entries
            # are stored before the process ends.
            thread = threading.Thread(target=self._run, name="ledger", daemon=False)
            thread.start()  # if this raises, the next request tries again
            self._thread = thread

    def _run(self) -> None:
        main = threading.main_thread()
        head_at = time.monotonic() + HEAD_MS / 1000
        forget_at = time.monotonic() + _FORGET_SECONDS
        while (main.is_alive() and not self._closed.is_set()) or self._queue:
            self._at = time.monotonic()
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._down is not None:
                self._try_again()
                continue
            while self._queue and self._down is None:
                if self._chain is not None:
                    self._chain.begin_early()
                self._gather()
                self._at = time.monotonic()
                if batch := self._take():
                    self._commit(batch)
            now = time.monotonic()
            if now >= self._looked_at + _IDLE_SECONDS and self._down is None:
                self._look()
            if now >= head_at and self._chain is not None:
                head_at = now + HEAD_MS / 1000
                self._run_maintenance(self._chain.write_head)
            if now >= forget_at:
                forget_at = now + _FORGET_SECONDS
                self._run_maintenance(lambda: purge_expired_keys(self._database))
        if self._chain is not None:
            self._chain.close()

    def _gather(self) -> None:
        """Wait a moment for the expected number of entries.

        A commit of all of them takes little longer than of some.
        """
        self._all.clear()
        self._gathers = True  # set before the check, so that the next `put` sees it
        if len(self._queue) < self._expected:
            self._all.wait(self._patience)
        self._gathers = False

    def _take(self) -> list[_Waiting]:
        """Take the entries of the next transaction: their ids rise, and each key occurs once."""
        taken: list[_Waiting] = []
        keys = set()
        decisions = size = 0
        newest = b""
        while self._queue and decisions < MOST_DECISIONS and size < _MOST_BYTES:
            waiting = self._queue.popleft()
            if waiting.told:  # it timed out
                continue
            key = waiting.entry.key
            records = waiting.entry.records
            if (key is not None and key[:2] in keys) or (records and records[0].id < newest):
                self._queue.appendleft(waiting)
                break
            newest = records[-1].id if records else newest
            if key is not None:
                keys.add(key[:2])
            taken.append(waiting)
            decisions += len(records)
            size += waiting.entry.size
        self._batch = taken
        return taken

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Store a batch and notify all its callers."""
        began = time.perf_counter()
        try:
            outcomes: Sequence[CommitResult] = self._kept([each.entry for each in batch])
        except LedgerError as error:
            self._lose(error)
            outcomes = [error] * len(batch)
        except Exception as error:  # the thread must survive any error of a driver
            log.exception("the ledger's writer failed")
            self._lose(LedgerUnavailable(type(error).__name__))
            outcomes = [LedgerUnavailable("the ledger's writer failed")] * len(batch)
        else:
            taken = time.perf_counter() - began
            self._patience = min(PATIENCE_SHARE * taken, MOST_PATIENCE_SECONDS)
            self._expected = min(len(batch) + len(self._queue), _ENOUGH)
            self._count(batch, outcomes, taken)
        self._note_look()
        self._batch = []
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.tell(outcome)

    def _count(
        self, batch: Sequence[_Waiting], outcomes: Sequence[CommitResult], seconds: float
    ) -> None:
        decisions = sum(
            len(each.entry.records)
            for each, outcome in zip(batch, outcomes, strict=True)
            if outcome is None
        )
        try:
            self._committed(Committed(len(batch), decisions, seconds))
        except Exception:  # as above
            log.exception("a commit could not be counted")

    def _kept(self, entries: Sequence[Entry]) -> Sequence[CommitResult]:
        chain = self._chain_for(entries)
        try:
            return chain.append(entries)
        # Text that can't be encoded fails before the database sees it.
        except (RecordRefused, KeyInUse, UnicodeError, OverflowError) as error:
            if len(entries) == 1:
                if isinstance(error, KeyInUse):
                    return [error]
                log.error("a decision was refused by the ledger's database: %s", error)
                return [RecordRefused(first_line(error))]
        # Store them one by one, in the order of ids: a bad entry fails only its own request.
        return [outcome for entry in entries for outcome in self._kept([entry])]

    def _chain_for(self, entries: Sequence[Entry]) -> Chain:
        """Return the chain for entries; open a new one if the current one can't take them."""
        first = next((record for entry in entries for record in entry.records), None)
        if self._chain is not None and first is not None and not self._chain.follows(first):
            log.warning(SET_BACK)
            self._chain.close()
            self._chain = None
        if self._chain is None:
            self._database.check()
            self._chain = Chain(self._database, self._seal())
        return self._chain

    def _lose(self, error: LedgerError) -> None:
        """Mark the ledger as unavailable, and refuse all waiting entries."""
        self._refuse_waiting(self._go_down(error))

    def _go_down(self, error: LedgerError) -> str:
        """Mark the ledger as unavailable, so that `put` refuses at once. Returns why."""
        if self._down is None:
            log.error("the ledger is unavailable: %s", error)
        self._down = why = first_line(error)
        return why

    def _refuse_waiting(self, why: str) -> None:
        while self._queue:
            self._queue.popleft().tell(LedgerUnavailable(why))

    def _look(self) -> None:
        """Check whether the database can be written to, while nothing is written."""
        try:
            self._database.expect_writable()
            if self._chain is None:
                self._database.check()
                self._seal()
        except LedgerError as error:
            self._lose(error)
        except Exception:  # as above
            log.exception("the ledger's writer failed to check its database")
        self._note_look()

    def _note_look(self) -> None:
        self._looked_at = time.monotonic()
        self._looked.set()

    def _try_again(self) -> None:
        self._refuse_waiting(self._down or "")  # entries queued just before it went down
        try:
            if self._chain is None:
                self._kept([])
            else:
                self._chain.write_head()
        except LedgerError as error:
            self._down = first_line(error)
        except Exception:
            log.exception("the ledger's writer failed; trying again")
        else:
            self._down = None
            log.warning("the ledger is available again")

    def _run_maintenance(self, task: Callable[[], object]) -> None:
        """Run a task that no request waits for. A failure is logged; a later run tries again."""
        try:
            task()
        except LedgerError as error:
            log.error("the ledger: %s", error)

    def _note_clock(self, was_set_back: bool) -> bool:
        """Log once that the clock was set back, and once that it has caught up."""
        set_back = self.clock
        if set_back and not was_set_back:
            log.warning("the clock %s", set_back)
        if was_set_back and not set_back:
            log.warning("the clock has caught up with the newest decision")
        return set_back is not None

    def _watch(self) -> None:
        """Refuse entries that waited longer than the limit, even if the database never answers."""
        set_back = False
        while not self._closed.wait(LOOK_SECONDS):
            set_back = self._note_clock(set_back)
            overdue = time.monotonic() - LIMIT_SECONDS
            keys = set()
            why = f"no commit within {LIMIT_SECONDS:.0f} s"
            for waiting in (*self._batch, *_snapshot(self._queue)):
                if waiting.since > overdue:
                    break
                key = waiting.entry.key
                same = key is not None and key[:2] in keys
                waiting.tell(KeyInUse(why) if same else LedgerUnavailable(why))
                # The writer is stuck, so it is the database, not the load. Once it is free again,
                # the writer checks whether that is still so.
                if self._at <= overdue:
                    self._go_down(LedgerUnavailable(why))
                if key is not None:
                    keys.add(key[:2])


def _snapshot(queue: deque[_Waiting]) -> list[_Waiting]:
    while True:
        try:
            return list(queue)
        except RuntimeError:  # it changed during the copy
            continue
