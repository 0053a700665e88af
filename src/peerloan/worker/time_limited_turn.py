"""A turn of the worker in a separate thread, which can be abandoned.

A call to the ledger, the store or a receiver of events may never return. So the main thread waits
for the turn. It renews the lease while the turn makes progress, and otherwise abandons the turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from peerloan.errors import PeerLoanError


class TurnAbandoned(PeerLoanError):
    """The turn was abandoned, and another process may have taken over."""


class TimeLimitedTurn:
    """Runs work in a daemon thread.

    The work calls `report_progress` between its steps. The main thread calls the other methods.
    """

    def __init__(self, work: Callable[[TimeLimitedTurn], None]) -> None:
        self._is_abandoned = False
        self._progressed = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name="turn", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[TimeLimitedTurn], None]) -> None:
        try:
            work(self)
        except TurnAbandoned:
            return

    def report_progress(self) -> None:
        """Record progress. Raises TurnAbandoned if the turn was abandoned."""
        if self._is_abandoned:
            raise TurnAbandoned
        self._progressed = time.monotonic()

    def stalled_seconds(self) -> float:
        """Return the seconds since the last progress."""
        return time.monotonic() - self._progressed

    def is_running(self) -> bool:
        """Whether the thread still runs, also if the turn was abandoned."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait up to this many seconds for the end. Returns whether the turn has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Make the turn end at its next call of `report_progress`."""
        self._is_abandoned = True
