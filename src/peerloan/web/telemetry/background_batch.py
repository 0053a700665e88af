"""Handles records of requests in batches in a background thread, for the access log and metrics.

A request's thread must not write the log itself: a write releases Python's global lock, and then
the thread waits to get it back. Also, counting a hundred requests at once takes little longer than
counting one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
# Shortest time between two batches. So log lines and metrics are this much late.
_PAUSE_SECONDS = 0.02
_Record = TypeVar("_Record")


class BackgroundBatch(Generic[_Record]):
    """Passes records to a function in batches, in a thread that starts with the first record.

    Thread-safe. The thread ends after the main thread, once all records are handled. If the
    function raises an error, the batch is lost, and the log has the error.
    """

    def __init__(self, handle: Callable[[list[_Record]], None]) -> None:
        self._handle = handle
        self._records: SimpleQueue[_Record] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, record: _Record) -> None:
        """Queue a record."""
        self._records.put(record)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="records", daemon=False)
                    thread.start()  # if this fails, the next record tries again
                    self._thread = thread

    def _run(self) -> None:
        # This is no daemon thread: the process waits for it. It ends after the main thread, when no
        # more records can come.
        main = threading.main_thread()
        pause = threading.Event()
        while main.is_alive():
            with contextlib.suppress(Empty):
                self._handle_batch([self._records.get(timeout=0.5)])
            pause.wait(_PAUSE_SECONDS)
        self._handle_batch([])

    def _handle_batch(self, records: list[_Record]) -> None:
        """Handle these records together with all that are queued."""
        with contextlib.suppress(Empty):
            while True:
                records.append(self._records.get_nowait())
        if records:
            try:
                self._handle(records)
            except Exception:  # no error may end the thread
                log.exception("records of %d requests are lost", len(records))
