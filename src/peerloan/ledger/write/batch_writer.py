"""Keeping a batch's decisions while more of them are made: a thread of its own writes."""

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
from peerloan.ledger.write.chain import SET_BACK, Chain
from peerloan.ledger.write.chain_opening import HEAD_MS
from peerloan.ledger.write.entries import Entry

log = logging.getLogger(__name__)
# Transactions that wait to be written: enough for the thread never to wait, and not much memory.
_AHEAD = 8


class Recorder:
    """An open chain that takes a batch's decisions, and says how many of them are kept so far.

    A context: leaving it on an error forgets what waits, and closes the chain all the same.
    """

    def __init__(self, database: Database, seal: Seal, caller: str) -> None:
        """Open a chain; raises LedgerUnavailable. `caller` is who has the batch decided on."""
        self.caller = caller
        # What a batch's decisions have in common, as those of a request have theirs.
        self.request_id = secrets.token_hex(16)
        self.kept = 0
        self._database, self._seal = database, seal
        self._chain = Chain(database, seal)
        self._queue: Queue[list[Record] | None] = Queue(_AHEAD)
        self._failure: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="recorder")
        self._thread.start()

    def put(self, records: list[Record]) -> None:
        """Hand over decisions, which are kept together: some thousands, for other writers wait
        meanwhile. Raises LedgerError if earlier ones could not be kept.
        """
        self._queue.put(records)
        self._raise_failure()

    def finish(self) -> None:
        """Wait until all are kept; raises LedgerError if some could not be."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise_failure()

    def __enter__(self) -> Recorder:
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
            if error is None:  # else that is why
                raise
        finally:
            self._chain.close()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _follow(self, record: Record) -> None:
        if not self._chain.follows(record):
            log.warning(SET_BACK)
            self._chain.close()
            self._chain = Chain(self._database, self._seal)

    def _run(self) -> None:
        seconds = HEAD_MS / 1000
        head_at = time.monotonic() + seconds
        while True:
            try:
                records = self._queue.get(timeout=seconds)
            except Empty:
                records = []
            if records is None:
                return
            if self._stopped or self._failure is not None:
                continue  # whoever puts must not wait for a place
            try:
                if records:
                    self._follow(records[0])
                    self._chain.append([Entry(records)])
                    self.kept += len(records)
                # Who has not written a head for minutes is taken for dead.
                if time.monotonic() >= head_at or not records:
                    self._chain.write_head()
                    head_at = time.monotonic() + seconds
            except Exception as error:  # the other thread raises it
                self._failure = error
