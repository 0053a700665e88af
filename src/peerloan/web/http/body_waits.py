"""Time limits for reading request bodies, and a limit of their number.

A server gives a request to a thread once its headers are there, and reading the body takes as long
as the client likes. A thread of this module ends the reads that take too long.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from peerloan.web.http.deferred_response import DEFERRED_KEY
from peerloan.web.http.problems import RequestError

# Most bodies to wait for in a process; other threads remain for complete requests.
THREADS = 288
_MAX_WAITS = 256
# Time limit for a complete body, so that one that arrives byte by byte ends too.
_BODY_SECONDS = 30.0
# If there are too many, a body is ended only after at least this time.
_FRESH_SECONDS = 1.0
_CHECK_SECONDS = 0.25


class Wait:
    """A body that is being read."""

    __slots__ = ("deadline", "environ", "error", "started")

    def __init__(self, environ: Mapping[str, Any], seconds: float) -> None:
        self.environ = environ
        self.started = time.monotonic()
        self.deadline = self.started + seconds
        self.error: RequestError | None = None


class BodyWaits:
    """The bodies that a process is reading. Thread-safe.

    A body that has taken `seconds` is ended with 408. If there are more than `most`, the oldest
    ones are ended with 503.
    """

    def __init__(self, most: int = _MAX_WAITS, seconds: float = _BODY_SECONDS) -> None:
        self.most, self.seconds = most, seconds
        # The thread that pops an item decides how its request ends; popping is atomic and needs no
        # lock.
        self._waits: dict[Wait, None] = {}
        self._watching = False
        self._lock = threading.Lock()

    def start(self, environ: Mapping[str, Any], seconds: float | None = None) -> Wait:
        """Record that a body is being read, with a time limit."""
        wait = Wait(environ, self.seconds if seconds is None else seconds)
        self._waits[wait] = None
        if not self._watching:
            self._watch()
        return wait

    def finish(self, wait: Wait) -> None:
        """Record that a body was read. Raises RequestError 408 or 503 if it was ended before."""
        if self._waits.pop(wait, wait) is wait:
            raise wait.error or _late()

    def end_late(self) -> None:
        """End the bodies over the time limit, and the oldest ones over the number limit."""
        now = time.monotonic()
        waits = sorted(self._waits.copy(), key=lambda wait: wait.started)
        too_many = len(waits) - self.most
        for place, wait in enumerate(waits):
            if wait.deadline <= now:
                self._end(wait, _late())
            elif place < too_many and now - wait.started > _FRESH_SECONDS:
                self._end(wait, _too_many())

    def _end(self, wait: Wait, error: RequestError) -> None:
        wait.error = error
        if self._waits.pop(wait, wait) is wait:  # the read completed meanwhile
            return
        environ = wait.environ
        if (sender := environ.get(DEFERRED_KEY)) is not None:
            sent = _sent(error, environ.get("peerloan.request_id", ""))
            threading.Thread(target=sender.end_body, args=sent, name="late", daemon=True).start()
        elif (connection := environ.get("gunicorn.socket")) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)

    def _watch(self) -> None:
        with self._lock:
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._check, name="bodies", daemon=True).start()

    def _check(self) -> None:
        while True:
            time.sleep(_CHECK_SECONDS)
            self.end_late()


def _late() -> RequestError:
    return RequestError(408, "Request Timeout", "the body did not arrive in time")


def _too_many() -> RequestError:
    return RequestError(
        503,
        "Too Many Unfinished Requests",
        "too many requests wait for their bodies, and this one has waited the longest; ask again",
        headers={"Retry-After": "1"},
    )


def _sent(error: RequestError, request_id: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return an error's status, headers and body, as problem details."""
    body = {"type": "about:blank", "title": error.title, "status": error.status}
    headers = {
        "Content-Type": "application/problem+json",
        "Connection": "close",
        "X-Request-Id": request_id,
    }
    content = msgspec.json.encode(body | {"detail": error.detail})
    return error.status, [*headers.items(), *error.headers.items()], content


# The waits of this process.
waits = BodyWaits()
