"""Detect Ctrl-C during a long library call: Python runs its handler only after the call."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM})


@contextmanager
def watch_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM has arrived. Thread-safe.

    Outside the main thread, where Python handles no signals, it always returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # Arrow's own signal handler would replace Python's, which writes to the wakeup descriptor.
    pa.enable_signal_handlers(False)
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as pipe, open(writing, "wb", buffering=0):  # noqa: PTH123
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield lambda: not pipe.closed and not _ENDING.isdisjoint(pipe.read(64) or b"")
        finally:
            signal.set_wakeup_fd(previous)
