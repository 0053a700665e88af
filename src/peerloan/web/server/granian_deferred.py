"""Deferred responses with Granian.

A response that waits for its decisions' commit would occupy a thread until then, and waking so many
threads costs more than the commits (docs/performance.md). So the application returns at once, and
the ledger's thread sends the response through the object that Granian would use. Other servers
don't support this: there the request's thread waits.
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

from peerloan.web.http.deferred_response import DEFERRED as LATER
from peerloan.web.http.deferred_response import DEFERRED_KEY as SENDER
from peerloan.web.http.deferred_response import Sent

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)
# Time for the client to receive a response before the connection ends.
_SENDING_SECONDS = 0.2
# The constant part of Granian's WSGI environment, without the settings of the process.
_USUAL = {
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


class Sender:
    """Granian's side of one request."""

    __slots__ = ("_headers", "_protocol", "_status")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._status = 500
        self._headers: list[tuple[str, str]] = []

    def start(self, line: str, headers: list[tuple[str, str]], *_error: Any) -> Any:
        """WSGI's start_response."""
        self._status, self._headers = int(line[:3]), headers

    def finish(self, body: Any) -> None:
        """Send the application's response, unless it is deferred."""
        if body is LATER:
            return
        if type(body) is list:
            self._protocol.response_bytes(self._status, self._headers, b"".join(body))
        else:
            parts = ResponseIterWrap(body)  # type: ignore[no-untyped-call]
            self._protocol.response_iter(self._status, self._headers, parts)

    def end_body(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer while the body is still being read, and stop reading.

        Granian releases the connection, and the thread that reads, only if a response ends before
        its length. So the announced length is one more than the content.
        """
        headers = [*headers, ("Content-Length", str(len(body) + 1))]
        parts = ResponseIterWrap(_unfinished(body))  # type: ignore[no-untyped-call]
        self._protocol.response_iter(status, headers, parts)

    def send(self, make: Callable[[], Sent], quickly: bool) -> None:
        """Send the result of `make`: in this thread if it is quick, otherwise in a new one."""
        if quickly:
            self._send(make)
        else:
            threading.Thread(target=self._send, args=(make,), name="answer", daemon=True).start()

    def _send(self, make: Callable[[], Sent]) -> None:
        try:
            line, headers, body = make()
        except Exception:  # the client must not wait for ever
            log.exception("an answer could not be made")
            line, headers, body = "500 Internal Server Error", [], b""
        self._protocol.response_bytes(int(line[:3]), headers, body)


def _wrap(application: WSGIApplication, _scope_options: Any, _access_log: Any = None) -> Any:
    """Return the function that Granian's worker calls for each request, in place of its wrapper."""

    def run(protocol: Any, environ: dict[str, Any]) -> None:
        sender = Sender(protocol)
        environ.update(_USUAL)
        environ[SENDER] = sender
        sender.finish(application(environ, sender.start))

    return run


def _unfinished(body: bytes) -> Iterator[bytes]:
    yield body
    time.sleep(_SENDING_SECONDS)  # otherwise the content is lost with the connection


def check() -> None:
    """Raise AttributeError if Granian does not wrap applications as `install` expects."""
    workers: Any = mp
    if workers._wsgi_call_wrap not in (_callback_wrapper, _wrap):
        raise AttributeError("it wraps applications in another way")


def install() -> None:
    """Enable deferred responses in the workers that Granian starts from now on."""
    workers: Any = mp
    workers._wsgi_call_wrap = _wrap
