"""Limits for reading request bodies: the time of each, and how many are read at once.

A server gives a request to a thread once it has received the headers. The thread then reads the
body, which takes as long as the client likes. Another thread, which this module starts, ends the
reads that take too long.
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

# Threads of a process for requests. At most _MAX_WAITS of them may wait for bodies, so that the
# others can answer complete requests.
THREADS = 288
_MAX_WAITS = 256
# Time limit for a complete body, also if it arrives byte by byte.
_BODY_SECONDS = 30.0
# Time limit for reading the rest of a body that was refused (see `request_body.drop_body`).
_DROP_SECONDS = 5.0
# If too many bodies are being read, one is ended only after at least this time.
_MIN_SECONDS = 1.0
_CHECK_SECONDS = 0.25


class Wait:
    """A request body that is being read, with its deadline (monotonic seconds)."""

    __slots__ = ("deadline", "environ", "error", "started")

    def __init__(self, environ: Mapping[str, Any], seconds: float) -> None:
        self.environ = environ
        self.started = time.monotonic()
        self.deadline = self.started + seconds
        self.error: RequestError | None = None


class BodyWaits:
    """The request bodies that a process is reading. Thread-safe.

    A body that has taken `seconds` is ended with 408. If there are more than `max_waits` bodies,
    the oldest ones are ended with 503. `drop_seconds` is the time limit for a refused body.
    """

    def __init__(
        self,
        max_waits: int = _MAX_WAITS,
        seconds: float = _BODY_SECONDS,
        drop_seconds: float = _DROP_SECONDS,
    ) -> None:
        self.max_waits, self.seconds, self.drop_seconds = max_waits, seconds, drop_seconds
        # The thread that pops an item decides how its request ends. `pop` is atomic, so no lock is
        # needed.
        self._waits: dict[Wait, None] = {}
        self._watching = False
        self._lock = threading.Lock()

    def start(self, environ: Mapping[str, Any], seconds: float | None = None) -> Wait:
        """Record that a body is being read; `seconds` is its time limit if not the usual one."""
        wait = Wait(environ, self.seconds if seconds is None else seconds)
        self._waits[wait] = None
        if not self._watching:
            self._watch()
        return wait

    def finish(self, wait: Wait) -> None:
        """Record that a body was read completely.

        Raises RequestError 408 or 503 if `end_late` has ended it already.
        """
        if self._waits.pop(wait, wait) is wait:
            raise wait.error or _body_timeout()

    def end_late(self) -> None:
        """End the bodies that took too long, and the oldest ones if there are too many."""
        now = time.monotonic()
        waits = sorted(self._waits.copy(), key=lambda wait: wait.started)
        too_many = len(waits) - self.max_waits
        for position, wait in enumerate(waits):
            if wait.deadline <= now:
                self._end(wait, _body_timeout())
            elif position < too_many and now - wait.started > _MIN_SECONDS:
                self._end(wait, _too_many())

    def _end(self, wait: Wait, error: RequestError) -> None:
        wait.error = error
        if self._waits.pop(wait, wait) is wait:  # it was read completely meanwhile
            return
        environ = wait.environ
        if (deferred := environ.get(DEFERRED_KEY)) is not None:
            response = _error_response(error, environ.get("peerloan.request_id", ""))
            thread = threading.Thread(
                target=deferred.respond_early, args=response, name="late", daemon=True
            )
            thread.start()
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


def _body_timeout() -> RequestError:
    return RequestError(408, "Request Timeout", "the body did not arrive in time")


def _too_many() -> RequestError:
    return RequestError(
        503,
        "Too Many Unfinished Requests",
        "too many request bodies are arriving at once, and this one has taken the longest; "
        "try again",
        headers={"Retry-After": "1"},
    )


def _error_response(
    error: RequestError, request_id: str
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return the status, headers and body of an error as problem details."""
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
