"""Ctrl-C while a library computes: Python handles a signal only once the call has returned."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM})


@contextmanager
def noticed_signals() -> Iterator[Callable[[], bool]]:
    """Whether a signal to end has come meanwhile; may be asked in any thread, as often as wanted.

    In another thread than the main one, which handles no signal, none ever comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # Arrow's own handler would take the place of Python's, which tells of signals.
    pa.enable_signal_handlers(False)
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as told, open(writing, "wb", buffering=0):  # noqa: PTH123
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield lambda: not told.closed and not _ENDING.isdisjoint(told.read(64) or b"")
        finally:
            signal.set_wakeup_fd(before)
