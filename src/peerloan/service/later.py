"""Answers that Granian sends later than the application returns.

An answer that waits for its decisions' commit would keep a thread until then, and to wake so many
threads costs more than the commits do (docs/performance.md). So the application returns at once,
and the ledger's thread sends the answer, through the same object that Granian would use. Other
servers know nothing of this: there the request's thread waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from granian.server import mp
from granian.wsgi import _callback_wrapper

from peerloan.service.observing import SENDER, Sent

log = logging.getLogger(__name__)


class Sender:
    """Granian's side of one request."""

    __slots__ = ("_later", "_protocol")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._later = False

    def later(self) -> None:
        """Say that the answer will be sent by `send`, and not by returning it."""
        self._later = True

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

    # As Granian calls them once the application has returned.

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer, unless it is sent later."""
        if not self._later:
            self._protocol.response_bytes(status, headers, body)

    def response_iter(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        """Send an answer part by part."""
        self._protocol.response_iter(status, headers, body)


def _wrap(callback: Any, scope_options: dict[str, Any], access_log: Any = None) -> Any:
    """What Granian's worker calls for each request: its own wrapper, around a Sender."""
    usual = _callback_wrapper(callback, scope_options, access_log)

    def run(protocol: Any, scope: dict[str, Any]) -> Any:
        sender = Sender(protocol)
        scope[SENDER] = sender
        return usual(sender, scope)

    return run


def install() -> None:
    """Let the workers that Granian starts from now on send answers later."""
    workers: Any = mp
    if workers._wsgi_call_wrap not in (_callback_wrapper, _wrap):
        raise RuntimeError("this Granian wraps applications in another way")
    workers._wsgi_call_wrap = _wrap
