"""A monitor's turn: what it does at once, in a thread of its own that can be given up.

Whatever a turn asks (the ledger, the store, a receiver) may never answer. So the main thread waits,
renews the lease only while the turn goes on, and leaves a turn that does not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from peerloan.errors import PeerLoanError


class TurnAbandoned(PeerLoanError):
    """The turn has been given up: another process may have taken over."""


class TimeLimitedTurn:
    """Work in a thread; it calls `go_on` between its steps."""

    def __init__(self, work: Callable[[TimeLimitedTurn], None]) -> None:
        self._given_up = False
        self._progressed = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name="turn", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[TimeLimitedTurn], None]) -> None:
        try:
            work(self)
        except TurnAbandoned:
            return

    def go_on(self) -> None:
        """Note progress; raises TurnAbandoned if the turn must end here."""
        if self._given_up:
            raise TurnAbandoned
        self._progressed = time.monotonic()

    def stalled_seconds(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._progressed

    def is_running(self) -> bool:
        """Whether it goes on, be it given up or not."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; returns whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """End it at its next step, if it comes to one."""
        self._given_up = True
