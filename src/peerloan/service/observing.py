"""Around the whole application: ids, headers, the request's line in the log, and its figures.

It knows addresses, times and statuses; never what stands in a body or in a query.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from peerloan.service import metrics
from peerloan.service.bodies import drop_body
from peerloan.service.lines import Lines

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ID = re.compile(r"[0-9A-Za-z._-]{8,64}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
# Everything comes from this site; nothing frames it; no script but its own runs.
_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]
# What is said of a loan stays with who asked; styles and scripts say for themselves.
_NO_STORE = ("Cache-Control", "no-store")


class Observed:
    """A WSGI application, observed; `lines` takes each request's line of the log."""

    def __init__(self, application: WSGIApplication, lines: Lines | None) -> None:
        self._application = application
        self._lines = lines

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, and tell how it went."""
        began = time.perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not _ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        environ["peerloan.request_id"] = request_id
        status, route = "500", "(none)"

        def start(line: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            nonlocal status, route
            status = line[:3]
            # Flask forgets its request before this returns.
            if rule := getattr(environ.get("werkzeug.request"), "url_rule", None):
                route = rule.rule
            if not any(name == "Cache-Control" for name, _ in headers):
                headers.append(_NO_STORE)
            headers += _HEADERS
            headers.append(("X-Request-Id", request_id))
            return start_response(line, headers, *error)

        try:
            return _whole(self._application(environ, start))
        finally:
            if status >= "400":
                # A proxy that can't send its request to the end takes that for the server's fault.
                drop_body(environ)
            seconds = time.perf_counter() - began
            method = environ["REQUEST_METHOD"]
            method = method if method in _METHODS else "(other)"
            metrics.count_request(method, route, status, seconds)
            if self._lines is not None:
                self._lines.write(_line(environ, request_id, status, seconds))


def _whole(parts: Iterable[bytes]) -> list[bytes]:
    """An answer in one piece, which a server sends with its head.

    Between two sends a worker may be killed, and a proxy that has seen a head can't ask another
    server any more. Every answer is in memory anyway, or is a small file.
    """
    try:
        return [b"".join(parts)]
    finally:
        if close := getattr(parts, "close", None):
            close()


def _now() -> str:
    milliseconds = time.time_ns() // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _line(environ: WSGIEnvironment, request_id: str, status: str, seconds: float) -> bytes:
    line = {
        "time": _now(),
        "level": "info",
        "message": "request",
        "request_id": request_id,
        "method": environ["REQUEST_METHOD"][:20],
        "path": environ.get("PATH_INFO", "")[:200],
        "status": int(status),
        "seconds": round(seconds, 6),
    }
    if caller := environ.get("peerloan.caller"):
        line["caller"] = caller.name
    if _TRACE.fullmatch(trace := environ.get("HTTP_TRACEPARENT", "")):
        line["traceparent"] = trace
    return msgspec.json.encode(line)
