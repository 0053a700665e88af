"""Responses that are sent after their view returns, and their keys in the WSGI environment.

A view puts a `PendingResponse` under PENDING_KEY. The middleware around the application takes it
out. If the server has put a `DeferredResponse` under DEFERRED_KEY, the middleware returns DEFERRED
and sends the response through it once it is resolved. Otherwise the request's thread waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from flask import Flask

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

PENDING_KEY = "peerloan.pending_response"
DEFERRED_KEY = "peerloan.deferred_response"
# A server recognizes this list by its identity.
DEFERRED: list[bytes] = []
# A response's status line, its headers and its body.
Sent = tuple[str, list[tuple[str, str]], bytes]
_Outcome = TypeVar("_Outcome")


class DeferredResponse(Protocol):
    """A server's side of one request, through which any thread can send the response."""

    def send(self, make: Callable[[], Sent], quickly: bool) -> None:
        """Send the result of `make`: in this thread if it is quick, otherwise in a new one."""

    def end_body(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer while the request's body is still being read, and stop reading."""


class PendingResponse(Generic[_Outcome]):
    """A prepared response that waits for an outcome; None is the outcome that it was prepared for.

    `replace` makes another response for any other outcome, in the context of the request.

    Thread safety: `resolve` and `on_resolved` may be called from two threads, in any order, once
    each. The later of the two calls runs the callback. `outcome` and `replacement` are valid from
    then on.
    """

    __slots__ = ("_app", "_callback", "_environ", "_replace", "_turns", "outcome")

    def __init__(
        self, app: Flask, environ: dict[str, Any], replace: Callable[[_Outcome], WSGIApplication]
    ) -> None:
        self._app, self._environ, self._replace = app, environ, replace
        self._turns = [None]
        self._callback: Callable[[], object] | None = None
        self.outcome: _Outcome | None = None

    def resolve(self, outcome: _Outcome | None) -> None:
        """Set the outcome."""
        self.outcome = outcome
        self._run_second()

    def on_resolved(self, callback: Callable[[], object]) -> None:
        """Have a callback run once the outcome is set; at once if it is already."""
        self._callback = callback
        self._run_second()

    def wait(self) -> None:
        """Block until the outcome is set. Its setter limits the time; use this or `on_resolved`."""
        resolved = threading.Lock()
        resolved.acquire()
        self.on_resolved(resolved.release)
        resolved.acquire()

    def replacement(self) -> WSGIApplication | None:
        """Return the response to send instead of the prepared one, if there is one."""
        if self.outcome is None:
            return None
        with self._app.request_context(self._environ):
            return self._replace(self.outcome)

    def _run_second(self) -> None:
        """Run the callback in the second call. Popping the only item is atomic."""
        try:
            self._turns.pop()
        except IndexError:
            # Dropped as it is called: it refers to this object, and the cycle would stay in memory
            # until the next garbage collection.
            callback, self._callback = self._callback, None
            cast("Callable[[], object]", callback)()
