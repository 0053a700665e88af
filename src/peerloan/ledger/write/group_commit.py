"""Group commit: one thread of a process stores the decisions of all waiting requests at once.

A commit of thirty decisions takes about as long as a commit of one. So requests queue their
decisions, the thread commits all that are queued in one transaction, and each request is notified
once its decisions are durable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from peerloan.clock import now_ms
from peerloan.database import Database, KeyInUse, LedgerError, LedgerUnavailable, RecordRefused
from peerloan.database.errors import first_line
from peerloan.ledger.retention import purge_expired_keys
from peerloan.ledger.seal import Seal
from peerloan.ledger.write.chain import CLOCK_SET_BACK, Chain
from peerloan.ledger.write.chain_opening import HEAD_INTERVAL_MS
from peerloan.ledger.write.entries import Entry, Result
from peerloan.uuid7 import IdGenerator

log = logging.getLogger(__name__)
# Longest time that a request waits for its commit.
LIMIT_SECONDS = 8.0
# If nothing was written for this long, check whether the database is available.
_IDLE_SECONDS = 2.0
# How long the first reader of `unavailable_reason` waits for the first check of the database.
_FIRST_CHECK_SECONDS = 1.0
# Don't wait for more entries if this many are queued.
_ENOUGH_ENTRIES = 16
# How often expired idempotency keys are deleted.
_KEY_PURGE_SECONDS = 600.0
# Smaller corrections of the clock are normal and not reported.
_MAX_CLOCK_STEP_MS = 1_000

CommitResult = Result | LedgerError
# A caller's callback: called once with its entry's result, in one of the writer's threads. It must
# be quick and raise nothing.
OnResult = Callable[[CommitResult], None]


class WriterLimits(NamedTuple):
    """Limits of a writer's transactions and waits."""

    # Longest wait of an entry for its commit.
    commit_seconds: float = LIMIT_SECONDS
    # Most decisions of one transaction, and bytes of their loans. The last entry may exceed them.
    max_decisions: int = 10_000
    max_bytes: int = 16_000_000
    # The threads check the queue and the database at least this often.
    check_seconds: float = 0.5
    # The chain's head is written this often.
    head_seconds: float = HEAD_INTERVAL_MS / 1000
    # Wait up to 25 % of the last commit (at most 1 ms) before a commit, so that clients that were
    # just answered can join it.
    gather_share: float = 0.25
    max_gather_seconds: float = 0.001


_DEFAULT_LIMITS = WriterLimits()


class CommitMetrics(NamedTuple):
    """Metrics of a transaction: its entries, the decisions that it stored, and its duration."""

    entries: int
    decisions: int
    seconds: float


class _QueuedEntry:
    """An entry that waits for its commit. Its caller is notified once.

    Thread-safe: the writer's thread and the timeout thread may both call `notify`.
    """

    __slots__ = ("_notifications", "_on_result", "entry", "queued_at")

    def __init__(self, entry: Entry, on_result: OnResult) -> None:
        self.entry, self._on_result = entry, on_result
        self.queued_at = time.monotonic()
        # One item, for the one notification. Popping it is atomic.
        self._notifications = [None]

    @property
    def is_notified(self) -> bool:
        """Whether the caller was notified."""
        return not self._notifications

    def notify(self, result: CommitResult) -> None:
        """Pass the result to the caller, unless the caller was notified before."""
        try:
            self._notifications.pop()
        except IndexError:
            return
        try:
            self._on_result(result)
        except Exception:  # must not end the thread that stores all decisions
            log.exception("a request could not be notified of its commit")


class LedgerWriter:
    """Stores entries in batches, in its own thread. Make one writer in each process.

    Thread safety: any thread may call every method and property. `make` runs with the writer's lock
    held, so it must be quick. `on_result` runs in one of the writer's threads.

    Ownership: the writer owns its threads, which start with the first entry, and its chain. It
    borrows the database. Its threads do not survive a fork. They end with `close`, or after the
    main thread once all queued entries are stored.

    Errors: `put` raises LedgerUnavailable while nothing can be stored. `on_result` gets the result,
    or LedgerUnavailable, RecordRefused or KeyInUse. An entry that gets LedgerUnavailable during its
    commit, such as after `commit_seconds`, may be stored nevertheless; a retry with the same
    idempotency key finds it.
    """

    def __init__(
        self,
        database: Database,
        seal: Callable[[], Seal],
        committed: Callable[[CommitMetrics], None] = lambda _: None,
        limits: WriterLimits = _DEFAULT_LIMITS,
    ) -> None:
        """Connect to nothing yet.

        `seal` opens the ledger's seal; it is called in the writer's thread before each new chain,
        and may raise LedgerError. `committed` is called there with the metrics of each transaction.
        """
        self._database, self._open_seal, self._report_commit = database, seal, committed
        self._limits = limits
        self._ids = IdGenerator()
        self._queue: deque[_QueuedEntry] = deque()
        # The entries of the transaction in progress.
        self._batch: list[_QueuedEntry] = []
        # Held while an entry is queued, so that ids rise in the queue, and while threads start.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # Set: there is something to do; the expected entries are queued; the writer is closed; the
        # database was checked at least once.
        self._wake, self._enough_queued = threading.Event(), threading.Event()
        self._closed, self._checked_once = threading.Event(), threading.Event()
        # How many entries the next transaction waits for, and for how long.
        self._expected_entries, self._gather_seconds = 1, 0.0
        self._is_gathering = False
        self._chain: Chain | None = None
        # Why nothing can be stored at present; None: the ledger is available.
        self._outage: str | None = None
        # When the writer's thread began its latest step, and last wrote to or checked the database.
        self._step_began_at = time.monotonic()
        self._checked_at = -_IDLE_SECONDS

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be stored at present; None if the ledger is available.

        After the first call the writer also checks the database while there is nothing to store.
        """
        if not self._checked_once.is_set():
            with self._lock:
                self._start_threads()
            self._wake.set()
            if not self._checked_once.wait(_FIRST_CHECK_SECONDS):
                return self._outage or "the database has not answered yet"
        return self._outage

    @property
    def clock_warning(self) -> str | None:
        """If the clock was set back: how far this process's decisions are dated ahead of it."""
        ahead_ms = self._ids.newest_ms - now_ms()
        if ahead_ms < _MAX_CLOCK_STEP_MS:
            return None
        seconds = f"{ahead_ms // 1000:,} s"
        return f"was set back by {seconds}: decisions are dated up to {seconds} ahead of it"

    @property
    def is_running(self) -> bool:
        """Whether callers may still be notified; ends shortly after the main thread does."""
        if threading.main_thread().is_alive() and not self._closed.is_set():
            return True
        return self._thread is not None and self._thread.is_alive()

    def put(self, make: Callable[[IdGenerator], Entry], on_result: OnResult) -> None:
        """Queue the entry that `make` returns.

        `make` takes the ids of its decisions from the generator, so that ids rise from one entry to
        the next. `on_result` is called once, with the result or the error. Raises LedgerUnavailable
        at once while nothing can be stored.
        """
        if self._outage is not None:
            raise LedgerUnavailable(self._outage)
        with self._lock:
            self._start_threads()
            self._queue.append(_QueuedEntry(make(self._ids), on_result))
        if not self._wake.is_set():
            self._wake.set()
        if self._is_gathering and len(self._queue) >= self._expected_entries:
            self._enough_queued.set()

    def close(self) -> None:
        """Commit all queued entries, close the chain, end the threads. Don't call `put` again."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._limits.commit_seconds)

    def _start_threads(self) -> None:
        """Start the threads if they don't run yet. The lock must be held."""
        if self._thread is None:
            threading.Thread(target=self._run_timeouts, name="ledger-clock", daemon=True).start()
            # Explicitly no daemon (a daemon thread of a server would pass that on): queued entries
            # are stored before the process ends.
            thread = threading.Thread(target=self._run, name="ledger", daemon=False)
            thread.start()  # if this raises, the next request tries again
            self._thread = thread

    def _run(self) -> None:
        """Run the writer's thread: commit queued entries, and check and maintain the ledger."""
        main = threading.main_thread()
        head_at = time.monotonic() + self._limits.head_seconds
        key_purge_at = time.monotonic() + _KEY_PURGE_SECONDS
        while (main.is_alive() and not self._closed.is_set()) or self._queue:
            self._step_began_at = time.monotonic()
            self._wake.wait(self._limits.check_seconds)
            self._wake.clear()
            if self._outage is not None:
                self._try_recovery()
                continue
            self._commit_queued()
            now = time.monotonic()
            if now >= self._checked_at + _IDLE_SECONDS and self._outage is None:
                self._check_database()
            if now >= head_at and self._chain is not None:
                head_at = now + self._limits.head_seconds
                self._run_maintenance(self._chain.write_head)
            if now >= key_purge_at:
                key_purge_at = now + _KEY_PURGE_SECONDS
                self._run_maintenance(lambda: purge_expired_keys(self._database))
        if self._chain is not None:
            self._chain.close()

    def _commit_queued(self) -> None:
        """Commit batches until the queue is empty or the ledger becomes unavailable."""
        while self._queue and self._outage is None:
            if self._chain is not None:
                self._chain.begin_early()
            self._gather()
            self._step_began_at = time.monotonic()
            if batch := self._take_batch():
                self._commit(batch)

    def _gather(self) -> None:
        """Wait a moment for the expected number of entries.

        A commit of all of them takes little longer than a commit of some.
        """
        self._enough_queued.clear()
        self._is_gathering = True  # set before the check, so that the next `put` sees it
        if len(self._queue) < self._expected_entries:
            self._enough_queued.wait(self._gather_seconds)
        self._is_gathering = False

    def _take_batch(self) -> list[_QueuedEntry]:
        """Take the entries of the next transaction: their ids rise, and each key occurs once."""
        batch: list[_QueuedEntry] = []
        keys = set()
        decisions = size = 0
        newest_id = b""
        limits = self._limits
        while self._queue and decisions < limits.max_decisions and size < limits.max_bytes:
            queued = self._queue.popleft()
            if queued.is_notified:  # it timed out
                continue
            records, key, entry_size = queued.entry
            if (key is not None and key[:2] in keys) or (records and records[0].id < newest_id):
                self._queue.appendleft(queued)
                break
            newest_id = records[-1].id if records else newest_id
            if key is not None:
                keys.add(key[:2])
            batch.append(queued)
            decisions, size = decisions + len(records), size + entry_size
        self._batch = batch
        return batch

    def _commit(self, batch: Sequence[_QueuedEntry]) -> None:
        """Store a batch and notify all its callers."""
        began = time.perf_counter()
        try:
            results: Sequence[CommitResult] = self._append([queued.entry for queued in batch])
        except LedgerError as error:
            self._fail_queued(error)
            results = [error] * len(batch)
        except Exception as error:  # the thread must survive any error of a driver
            log.exception("the ledger's writer failed")
            self._fail_queued(LedgerUnavailable(type(error).__name__))
            results = [LedgerUnavailable("the ledger's writer failed")] * len(batch)
        else:
            seconds = time.perf_counter() - began
            limits = self._limits
            self._gather_seconds = min(limits.gather_share * seconds, limits.max_gather_seconds)
            self._expected_entries = min(len(batch) + len(self._queue), _ENOUGH_ENTRIES)
            self._report_metrics(batch, results, seconds)
        self._note_check()
        self._batch = []
        for queued, result in zip(batch, results, strict=True):
            queued.notify(result)

    def _report_metrics(
        self, batch: Sequence[_QueuedEntry], results: Sequence[CommitResult], seconds: float
    ) -> None:
        decisions = sum(
            len(queued.entry.records)
            for queued, result in zip(batch, results, strict=True)
            if result is None
        )
        try:
            self._report_commit(CommitMetrics(len(batch), decisions, seconds))
        except Exception:  # must not end the thread
            log.exception("the metrics of a commit could not be counted")

    def _append(self, entries: Sequence[Entry]) -> Sequence[CommitResult]:
        """Store entries in one transaction, or one by one if the database refuses some of them."""
        chain = self._chain_for(entries)
        try:
            return chain.append(entries)
        # Text that can't be encoded fails before it reaches the database.
        except (RecordRefused, KeyInUse, UnicodeError, OverflowError) as error:
            if len(entries) == 1:
                if isinstance(error, KeyInUse):
                    return [error]
                log.error("a decision was refused by the ledger's database: %s", error)
                return [RecordRefused(first_line(error))]
        # Store them one by one, in the order of ids: a bad entry fails only its own request.
        return [result for entry in entries for result in self._append([entry])]

    def _chain_for(self, entries: Sequence[Entry]) -> Chain:
        """Return the chain for entries; open a new one if the current one can't take them."""
        first = next((record for entry in entries for record in entry.records), None)
        if self._chain is not None and first is not None and not self._chain.accepts(first):
            log.warning(CLOCK_SET_BACK)
            self._chain.close()
            self._chain = None
        if self._chain is None:
            self._database.check()
            self._chain = Chain(self._database, self._open_seal())
        return self._chain

    def _fail_queued(self, error: LedgerError) -> None:
        """Mark the ledger as unavailable, and fail all queued entries."""
        self._notify_queued(self._begin_outage(error))

    def _begin_outage(self, error: LedgerError) -> str:
        """Mark the ledger as unavailable, so that `put` raises at once. Returns the reason."""
        if self._outage is None:
            log.error("the ledger is unavailable: %s", error)
        self._outage = reason = first_line(error)
        return reason

    def _notify_queued(self, reason: str) -> None:
        """Empty the queue; each caller gets LedgerUnavailable."""
        while self._queue:
            self._queue.popleft().notify(LedgerUnavailable(reason))

    def _check_database(self) -> None:
        """Check whether the database can be written to, while there is nothing to write."""
        try:
            self._database.expect_writable()
            if self._chain is None:
                self._database.check()
                self._open_seal()
        except LedgerError as error:
            self._fail_queued(error)
        except Exception:  # must not end the thread
            log.exception("the ledger's writer failed to check its database")
        self._note_check()

    def _note_check(self) -> None:
        self._checked_at = time.monotonic()
        self._checked_once.set()

    def _try_recovery(self) -> None:
        """End the outage if the chain can be opened, or its head written."""
        self._notify_queued(self._outage or "")  # entries that were queued just before the outage
        try:
            if self._chain is None:
                self._append([])
            else:
                self._chain.write_head()
        except LedgerError as error:
            self._outage = first_line(error)
        except Exception:  # must not end the thread
            log.exception("the ledger's writer failed; trying again")
        else:
            self._outage = None
            log.warning("the ledger is available again")

    def _run_maintenance(self, task: Callable[[], object]) -> None:
        """Run a task that no request waits for. A failure is logged; a later run tries again."""
        try:
            task()
        except LedgerError as error:
            log.error("maintenance of the ledger failed and is tried again later: %s", error)

    def _log_clock(self, was_set_back: bool) -> bool:
        """Log once that the clock was set back, and once that it has caught up."""
        step = self.clock_warning
        if step and not was_set_back:
            log.warning("the clock %s", step)
        if was_set_back and not step:
            log.warning("the clock has caught up with the newest decision")
        return step is not None

    def _run_timeouts(self) -> None:
        """Run the timeout thread: fail entries that waited longer than the limit.

        This works even if the database never responds to the writer's thread.
        """
        set_back = False
        limit = self._limits.commit_seconds
        reason = f"no commit within {limit:.0f} s"
        while not self._closed.wait(self._limits.check_seconds):
            set_back = self._log_clock(set_back)
            latest = time.monotonic() - limit
            keys = set()
            for queued in (*self._batch, *_copy_queue(self._queue)):
                if queued.queued_at > latest:
                    break
                key = queued.entry.key
                is_repeated = key is not None and key[:2] in keys
                queued.notify(KeyInUse(reason) if is_repeated else LedgerUnavailable(reason))
                # If the writer's thread is stuck in one step, the cause is the database, not the
                # load. Once the step ends, the writer checks whether the database is available.
                if self._step_began_at <= latest:
                    self._begin_outage(LedgerUnavailable(reason))
                if key is not None:
                    keys.add(key[:2])


def _copy_queue(queue: deque[_QueuedEntry]) -> list[_QueuedEntry]:
    while True:
        try:
            return list(queue)
        except RuntimeError:  # it changed during the copy
            continue
