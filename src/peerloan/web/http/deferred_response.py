"""Responses that are sent after their view has returned.

1. The view prepares a response and puts a `PendingResponse` into the WSGI environment, under
   PENDING_KEY.
2. The middleware around the application takes it from there. If the server has put a
   `DeferredResponse` under DEFERRED_KEY, the middleware returns DEFERRED, and the request's thread
   is free. Otherwise the thread waits.
3. Another thread resolves the pending response. Then it is sent: as prepared, or after a failure
   its replacement.
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
# The body that means "sent later". A server recognizes this list by its identity.
DEFERRED: list[bytes] = []
# A response's status line, its headers and its body.
ResponseParts = tuple[str, list[tuple[str, str]], bytes]
_Failure = TypeVar("_Failure")


class DeferredResponse(Protocol):
    """A server's connection to the client of one request. Any thread may send the response."""

    def send(self, build: Callable[[], ResponseParts], in_new_thread: bool) -> None:
        """Send the response that `build` returns; call `build` in this thread or in a new one."""

    def respond_early(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a response while the request's body is still being read, and stop reading."""


class PendingResponse(Generic[_Failure]):
    """A prepared response that is sent after an operation, such as a commit, has ended.

    If the operation succeeds, `failure` stays None and the prepared response is sent. Otherwise
    `replace` makes the response for the failure, in the context of the request.

    Thread safety: `resolve` and `on_resolved` may be called from two threads, in any order, once
    each. The second of the two calls runs the callback. `failure` and `replacement` are valid from
    then on.
    """

    __slots__ = ("_app", "_callback", "_environ", "_first_call", "_replace", "failure")

    def __init__(
        self, app: Flask, environ: dict[str, Any], replace: Callable[[_Failure], WSGIApplication]
    ) -> None:
        self._app, self._environ, self._replace = app, environ, replace
        # One item, which the first call of `resolve` or `on_resolved` pops.
        self._first_call = [None]
        self._callback: Callable[[], object] | None = None
        self.failure: _Failure | None = None

    def resolve(self, failure: _Failure | None) -> None:
        """Record that the operation has ended; `failure` is None if it succeeded."""
        self.failure = failure
        self._run_callback_in_second_call()

    def on_resolved(self, callback: Callable[[], object]) -> None:
        """Run a callback after `resolve`, or at once if `resolve` was called already."""
        self._callback = callback
        self._run_callback_in_second_call()

    def wait(self) -> None:
        """Block until `resolve` is called. Use this instead of `on_resolved`.

        There is no time limit here: the operation must have one.
        """
        resolved = threading.Lock()
        resolved.acquire()
        self.on_resolved(resolved.release)
        resolved.acquire()

    def replacement(self) -> WSGIApplication | None:
        """Return the response to send after a failure; None if the prepared one is sent."""
        if self.failure is None:
            return None
        with self._app.request_context(self._environ):
            return self._replace(self.failure)

    def _run_callback_in_second_call(self) -> None:
        """Run the callback if this is the second call. `pop` is atomic, so no lock is needed."""
        try:
            self._first_call.pop()
        except IndexError:
            # The callback refers to this object. Without removing it, the reference cycle would
            # stay in memory until the next garbage collection.
            callback, self._callback = self._callback, None
            cast("Callable[[], object]", callback)()
