"""Deferred responses with Granian, by private parts of Granian.

A response waits for the commit of its decisions. If the request's thread waited too, waking
hundreds of threads would cost more time than the commits (docs/performance.md). So the application
returns at once, and the ledger's thread sends the response later, through Granian's object for this
request. Other servers don't support this: there the request's thread waits.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from granian.server import mp
from granian.wsgi import ResponseIterWrap, _callback_wrapper

from peerloan.web.http.deferred_response import DEFERRED, DEFERRED_KEY, ResponseParts

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)
# Time for the client to receive an early response before the connection is closed.
_SENDING_SECONDS = 0.2
# The constant members of the WSGI environment (PEP 3333), which Granian's wrapper would set.
_CONSTANT_ENVIRON = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "Granian",
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multiprocess": False,
    "wsgi.multithread": True,
    "wsgi.run_once": False,
    "wsgi.version": (1, 0),
}


class GranianResponse:
    """The `DeferredResponse` of one request, over Granian's object for it (`protocol`)."""

    __slots__ = ("_headers", "_protocol", "_status")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._status = 500
        self._headers: list[tuple[str, str]] = []

    def start(self, status_line: str, headers: list[tuple[str, str]], *_error: Any) -> Any:
        """Record the status and headers. This is WSGI's start_response."""
        self._status, self._headers = int(status_line[:3]), headers

    def finish(self, body: Any) -> None:
        """Send the body that the application returned, unless the response is deferred."""
        if body is DEFERRED:
            return
        if type(body) is list:
            self._protocol.response_bytes(self._status, self._headers, b"".join(body))
        else:
            parts = ResponseIterWrap(body)  # type: ignore[no-untyped-call]
            self._protocol.response_iter(self._status, self._headers, parts)

    def respond_early(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a response while the request's body is still being read, and stop reading.

        Granian closes the connection, and so releases the reading thread, only if a response ends
        before its Content-Length. So that header is one more than the length of the body.
        """
        headers = [*headers, ("Content-Length", str(len(body) + 1))]
        parts = ResponseIterWrap(_pause_after(body))  # type: ignore[no-untyped-call]
        self._protocol.response_iter(status, headers, parts)

    def send(self, build: Callable[[], ResponseParts], in_new_thread: bool) -> None:
        """Send the response that `build` returns; call `build` in this thread or in a new one."""
        if in_new_thread:
            threading.Thread(target=self._send, args=(build,), name="answer", daemon=True).start()
        else:
            self._send(build)

    def _send(self, build: Callable[[], ResponseParts]) -> None:
        try:
            status_line, headers, body = build()
        except Exception:  # without a response, the client would wait for ever
            log.exception("a deferred response could not be built")
            status_line, headers, body = "500 Internal Server Error", [], b""
        self._protocol.response_bytes(int(status_line[:3]), headers, body)


def _wrap(application: WSGIApplication, _scope_options: Any, _access_log: Any = None) -> Any:
    """Return the function that Granian's worker calls for each request, in place of its wrapper."""

    def run(protocol: Any, environ: dict[str, Any]) -> None:
        response = GranianResponse(protocol)
        environ.update(_CONSTANT_ENVIRON)
        environ[DEFERRED_KEY] = response
        response.finish(application(environ, response.start))

    return run


def _pause_after(body: bytes) -> Iterator[bytes]:
    """Yield a body, and give the client time to receive it before the connection is closed."""
    yield body
    time.sleep(_SENDING_SECONDS)


def check() -> None:
    """Raise AttributeError if Granian does not wrap applications as `install` expects."""
    workers: Any = mp
    if workers._wsgi_call_wrap not in (_callback_wrapper, _wrap):
        raise AttributeError("it wraps applications in an unknown way")


def install() -> None:
    """Enable deferred responses in the workers that Granian starts from now on."""
    workers: Any = mp
    workers._wsgi_call_wrap = _wrap
