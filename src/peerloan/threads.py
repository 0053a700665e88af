"""Threads that leave signals to the main thread."""

from __future__ import annotations

import signal
import threading

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_unsignalled(thread: threading.Thread) -> None:
    """Start a thread that takes none of the signals that end a process, nor do those it starts.

    A thread that is just being started may take a signal before the main thread does, which alone
    could handle it and would go on sleeping: a worker would not stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
