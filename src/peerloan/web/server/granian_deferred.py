"""Answers that Granian sends later than the application returns.

An answer that waits for its decisions' commit would keep a thread until then, and to wake so many
threads costs more than the commits do (docs/performance.md). So the application returns at once,
and the ledger's thread sends the answer, through the same object that Granian would use. Other
servers know nothing of this: there the request's thread waits.
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

from peerloan.web.http.deferred import DEFERRED as LATER
from peerloan.web.http.deferred import DEFERRED_KEY as SENDER
from peerloan.web.http.deferred import Sent

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)
# Until the client has an answer that is followed by the end of the connection.
_SENDING_SECONDS = 0.2
# What a WSGI environment says beside the request, as Granian has it; not the process's settings.
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
        """Send what the application has returned, unless that says that it is sent later."""
        if body is LATER:
            return
        if type(body) is list:
            self._protocol.response_bytes(self._status, self._headers, b"".join(body))
        else:
            parts = ResponseIterWrap(body)  # type: ignore[no-untyped-call]
            self._protocol.response_iter(self._status, self._headers, parts)

    def end_body(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer while the body is still being read, and end that.

        Granian lets go of the connection, and of the thread that reads, only if an answer ends
        before its length: so it is one more than what is sent.
        """
        headers = [*headers, ("Content-Length", str(len(body) + 1))]
        parts = ResponseIterWrap(_unfinished(body))  # type: ignore[no-untyped-call]
        self._protocol.response_iter(status, headers, parts)

    def send(self, make: Callable[[], Sent], quickly: bool) -> None:
        """Send what `make` gives: here, or in a thread of its own if it isn't made quickly."""
        if quickly:
            self._send(make)
        else:
            threading.Thread(target=self._send, args=(make,), name="answer", daemon=True).start()

    def _send(self, make: Callable[[], Sent]) -> None:
        try:
            line, headers, body = make()
        except Exception:  # who asked must not wait for ever
            log.exception("an answer could not be made")
            line, headers, body = "500 Internal Server Error", [], b""
        self._protocol.response_bytes(int(line[:3]), headers, body)


def _wrap(application: WSGIApplication, _scope_options: Any, _access_log: Any = None) -> Any:
    """What Granian's worker calls for each request, in the place of its own wrapper."""

    def run(protocol: Any, environ: dict[str, Any]) -> None:
        sender = Sender(protocol)
        environ.update(_USUAL)
        environ[SENDER] = sender
        sender.finish(application(environ, sender.start))

    return run


def _unfinished(body: bytes) -> Iterator[bytes]:
    yield body
    time.sleep(_SENDING_SECONDS)  # or what is sent would be dropped with the connection


def check() -> None:
    """Raise AttributeError where Granian does not wrap applications as `install` expects."""
    workers: Any = mp
    if workers._wsgi_call_wrap not in (_callback_wrapper, _wrap):
        raise AttributeError("it wraps applications in another way")


def install() -> None:
    """Let the workers that Granian starts from now on send answers later."""
    workers: Any = mp
    workers._wsgi_call_wrap = _wrap
