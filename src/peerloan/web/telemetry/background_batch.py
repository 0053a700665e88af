"""Handles records of requests, such as log lines, in batches in its own thread.

A write releases Python's lock, and the request would wait for its turn. Counting a hundred requests
at once costs little more than counting one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
# Shortest time between two batches; nobody notices the delay.
_PAUSE_SECONDS = 0.02
_Record = TypeVar("_Record")


class BackgroundBatch(Generic[_Record]):
    """Passes records to a function in batches, in a thread that starts with the first record.

    Thread-safe. The thread ends after the main thread, once every record is handled. A record that
    can't be handled is lost, and logged.
    """

    def __init__(self, handle: Callable[[list[_Record]], None]) -> None:
        self._handle = handle
        self._records: SimpleQueue[_Record] = SimpleQueue()
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, record: _Record) -> None:
        """Queue a record."""
        self._records.put(record)
        if self._thread is None:
            with self._begin:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="records", daemon=False)
                    thread.start()  # if it can't, the next record tries again
                    self._thread = thread

    def _run(self) -> None:
        # Not a daemon thread: the process waits for it, and it ends once nobody can put a record.
        main = threading.main_thread()
        pause = threading.Event()
        while main.is_alive():
            with contextlib.suppress(Empty):
                self._take([self._records.get(timeout=0.5)])
            pause.wait(_PAUSE_SECONDS)
        self._take([])

    def _take(self, records: list[_Record]) -> None:
        with contextlib.suppress(Empty):
            while True:
                records.append(self._records.get_nowait())
        if records:
            try:
                self._handle(records)
            except Exception:  # a record must not end the thread
                log.exception("records of %d requests are lost", len(records))
