"""What is to be done about requests, done beside them: their log and their figures.

A write lets another thread run, and then the request waits for its turn; and to count a hundred
requests at once costs little more than to count one. So records of a moment are handed to one
thread, which handles them together.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
# So often, at most: nobody sees the delay.
_PAUSE_SECONDS = 0.02
_Record = TypeVar("_Record")


class Aside(Generic[_Record]):
    """Hands records to a function, many at once; its thread begins with the first of them."""

    def __init__(self, handle: Callable[[list[_Record]], None]) -> None:
        self._handle = handle
        self._records: SimpleQueue[_Record] = SimpleQueue()
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, record: _Record) -> None:
        """Hand over a record."""
        self._records.put(record)
        if self._thread is None:
            with self._begin:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="aside", daemon=False)
                    thread.start()  # if it can't, the next record tries again
                    self._thread = thread

    def _run(self) -> None:
        # No daemon, whatever began it is: the process waits for it, and it ends when nobody is left
        # to hand over.
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
            except Exception:  # what is told of requests must end none
                log.exception("records of %d requests are lost", len(records))
