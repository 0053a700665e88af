"""Stores the decisions of a book in a background thread, while others are computed."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from queue import Empty, Queue
from types import TracebackType

from peerloan.database.engine import Database
from peerloan.ledger.records import Record
from peerloan.ledger.seal import Seal
from peerloan.ledger.write.chain import CLOCK_SET_BACK, Chain
from peerloan.ledger.write.chain_opening import HEAD_INTERVAL_MS
from peerloan.ledger.write.entries import Entry

log = logging.getLogger(__name__)
# Transactions in the queue: enough to keep the thread busy, in little memory.
_MAX_QUEUED = 8


class BatchWriter:
    """Stores the decisions of a book in a new chain; `kept` counts those stored so far.

    A context manager. If its block raises an error, it drops the queued decisions and still closes
    the chain.

    Thread safety: one thread calls `put` and `finish`. Ownership: it owns its thread and its chain;
    it borrows the database and the seal. Errors: a failure in the background is raised by the next
    `put` or `finish`; later decisions are dropped then.
    """

    def __init__(self, database: Database, seal: Seal, caller: str) -> None:
        """Open a chain. `caller` is the user who runs the command. Raises LedgerError."""
        self.caller = caller
        # One request id for all decisions of the book.
        self.request_id = secrets.token_hex(16)
        self.kept = 0
        self._database, self._seal = database, seal
        self._chain = Chain(database, seal)
        self._queue: Queue[list[Record] | None] = Queue(_MAX_QUEUED)
        self._failure: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="recorder")
        self._thread.start()

    def put(self, records: list[Record]) -> None:
        """Queue decisions, to be stored in one transaction.

        Pass at most some thousands: other writers wait meanwhile. Waits while the queue is full.
        Raises LedgerError if earlier decisions could not be stored.
        """
        self._queue.put(records)
        self._raise_failure()

    def finish(self) -> None:
        """Wait until all decisions are stored. Raises LedgerError if some could not be stored."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise_failure()

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stopped = error is not None
        try:
            self.finish()
        except Exception:
            if error is None:  # else the error of the context is raised
                raise
        finally:
            self._chain.close()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _ensure_chain(self, record: Record) -> None:
        """Open another chain if the clock was set back before the record's decision."""
        if not self._chain.accepts(record):
            log.warning(CLOCK_SET_BACK)
            self._chain.close()
            self._chain = Chain(self._database, self._seal)

    def _run(self) -> None:
        seconds = HEAD_INTERVAL_MS / 1000
        head_at = time.monotonic() + seconds
        while True:
            try:
                records = self._queue.get(timeout=seconds)
            except Empty:
                records = []
            if records is None:
                return
            if self._stopped or self._failure is not None:
                continue  # keep emptying the queue, so that `put` never blocks
            try:
                if records:
                    self._ensure_chain(records[0])
                    self._chain.append([Entry(records)])
                    self.kept += len(records)
                # A chain without a new head for minutes counts as abandoned and is closed.
                if time.monotonic() >= head_at or not records:
                    self._chain.write_head()
                    head_at = time.monotonic() + seconds
            except Exception as error:  # `put` or `finish` raises it
                self._failure = error
