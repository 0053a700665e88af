"""Lines of a log, written beside the requests that they are about.

A write lets another thread run, and then the request waits for its turn: so the lines of a moment
are handed to one thread, which writes them at once.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from queue import Empty, SimpleQueue

# So often, at most: a line is not late, and hundreds of them cost one write.
_PAUSE_SECONDS = 0.02


class Lines:
    """Writes lines to standard output; the thread that does begins with the first of them."""

    def __init__(self) -> None:
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Hand over a line without its end."""
        self._lines.put(line)
        if self._thread is None:
            with self._begin:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="lines")
                    self._thread.start()

    def _run(self) -> None:
        # No daemon: the process waits for it, and it ends when nobody is left to write a line.
        main = threading.main_thread()
        pause = threading.Event()
        while main.is_alive():
            with contextlib.suppress(Empty):
                self._write([self._lines.get(timeout=0.5)])
            pause.wait(_PAUSE_SECONDS)
        self._write([])

    def _write(self, lines: list[bytes]) -> None:
        with contextlib.suppress(Empty):
            while True:
                lines.append(self._lines.get_nowait())
        if lines:
            # A reader that has gone must not end the service.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
                sys.stdout.buffer.flush()
