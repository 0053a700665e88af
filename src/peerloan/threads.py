"""Start threads that leave signals to the main thread."""

from __future__ import annotations

import signal
import threading

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_unsignalled(thread: threading.Thread) -> None:
    """Start a thread that blocks SIGINT, SIGTERM and SIGHUP, as do all threads that it starts.

    Only the main thread handles signals in Python. If another thread received one, the main thread
    might not wake up, and a worker process would not stop.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
