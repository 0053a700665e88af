"""The outermost middleware: request ids, security headers, access log and metrics.

The access log and the metrics contain paths, times and statuses, but nothing from a body or a query
string.
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec

from peerloan.web.auth.authentication import caller_name
from peerloan.web.http.deferred_response import (
    DEFERRED,
    DEFERRED_KEY,
    PENDING_KEY,
    DeferredResponse,
    PendingResponse,
    ResponseParts,
)
from peerloan.web.http.request_body import drop_body
from peerloan.web.telemetry import metrics
from peerloan.web.telemetry.background_batch import BackgroundBatch

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{8,64}")
# W3C Trace Context: version ff is invalid, and so are ids with only zeros.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
# Pages load content only from this site, can't be framed, and run no inline scripts.
_SECURITY_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]
# Responses about loans must not be cached; styles and scripts set their own header.
_NO_STORE = ("Cache-Control", "no-store")
_encoder = msgspec.json.Encoder()


class _RequestRecord(NamedTuple):
    """An answered request, for the access log and the metrics."""

    time_ns: int  # since 1970
    request_id: str
    method: str
    path: str
    route: str
    status: str
    seconds: float
    caller: str
    traceparent: str


class _LogLine(msgspec.Struct, omit_defaults=True):
    """A request's line in the access log."""

    time: str
    request_id: str
    method: str
    path: str
    status: int
    seconds: float
    # These two have no defaults, because a member with its default value would be omitted.
    level: str
    message: str
    caller: str = ""
    traceparent: str = ""


class _ResponseStart:
    """A response's status line and headers, and the route that made it."""

    __slots__ = ("_environ", "headers", "request_id", "route", "status_line", "traceparent")

    def __init__(self, request_id: str, environ: WSGIEnvironment) -> None:
        self.request_id, self._environ = request_id, environ
        self.status_line, self.route = "500 Internal Server Error", "(none)"
        self.headers: list[tuple[str, str]] = []
        header = environ.get("HTTP_TRACEPARENT", "")
        self.traceparent = header if header and _TRACEPARENT.fullmatch(header) else ""

    def start(self, status_line: str, headers: list[tuple[str, str]], *_error: Any) -> Any:
        """Record the start of a response and add headers. This is WSGI's start_response."""
        self.status_line = status_line
        # Read now: Flask removes its request from the environment afterwards.
        if rule := getattr(self._environ.get("werkzeug.request"), "url_rule", None):
            self.route = rule.rule
        if "Cache-Control" not in dict(headers):
            headers.append(_NO_STORE)
        headers += _SECURITY_HEADERS
        headers.append(("X-Request-Id", self.request_id))
        if self.traceparent:
            headers.append(("Traceparent", self.traceparent))
        self.headers = headers


class AccessLogMiddleware:
    """A WSGI application with request ids, security headers, metrics and an access log.

    `log` gets a JSON line for each request; None means no access log. Thread-safe.
    """

    def __init__(self, application: WSGIApplication, log: BinaryIO | None) -> None:
        self._application = application
        self._log = log
        self._batch = BackgroundBatch(self._log_and_count) if log else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application, and record the request.

        A pending response is deferred if the server supports it (see `http.deferred_response`).
        Otherwise this waits for it.
        """
        began = time.perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        environ["peerloan.request_id"] = request_id
        start = _ResponseStart(request_id, environ)
        try:
            body = _join_parts(self._application(environ, start.start))
        except BaseException:
            self._record(environ, start, began)
            raise
        # Removed, because it refers to the environment.
        pending: PendingResponse[Any] | None = environ.pop(PENDING_KEY, None)
        if pending is None:
            self._record(environ, start, began)
            start_response(start.status_line, start.headers)
            return body
        finish = partial(self._finish, pending, environ, start, body, began)
        deferred: DeferredResponse | None = environ.get(DEFERRED_KEY)
        if deferred is None:
            pending.wait()
            status_line, headers, content = finish()
            start_response(status_line, headers)
            return [content]
        # Building a replacement takes long, so the ledger's thread must not do it.
        pending.on_resolved(
            lambda: deferred.send(finish, in_new_thread=pending.failure is not None)
        )
        return DEFERRED

    def _finish(
        self,
        pending: PendingResponse[Any],
        environ: WSGIEnvironment,
        start: _ResponseStart,
        prepared: list[bytes],
        began: float,
    ) -> ResponseParts:
        """Return the response to send once it is resolved, and record the request."""
        content = prepared[0]
        if (replacement := pending.replacement()) is not None:
            content = _join_parts(replacement(environ, start.start))[0]
        self._record(environ, start, began)
        return start.status_line, start.headers, content

    def _record(self, environ: WSGIEnvironment, start: _ResponseStart, began: float) -> None:
        """Record the request for the access log and the metrics."""
        status = start.status_line[:3]
        if status >= "400":
            # A proxy that can't send its complete request reports a fault of the server.
            drop_body(environ)
        record = _RequestRecord(
            time.time_ns(),
            start.request_id,
            environ["REQUEST_METHOD"],
            environ.get("PATH_INFO", ""),
            start.route,
            status,
            time.perf_counter() - began,
            caller_name(environ),
            start.traceparent,
        )
        if self._batch is None:
            self._log_and_count([record])
        else:
            self._batch.put(record)

    def _log_and_count(self, records: list[_RequestRecord]) -> None:
        metrics.count_requests(
            (each.method if each.method in _METHODS else "(other)", each.route, each.status)
            for each in records
        )
        metrics.time_requests((each.route, each.seconds) for each in records)
        metrics.flush()
        if self._log is not None:
            # If nobody reads the log any more, the service must continue.
            with contextlib.suppress(OSError, ValueError):
                for lines in split_for_pipe(_encoder.encode_lines(map(_log_line, records))):
                    self._log.write(lines)
                    self._log.flush()


def _join_parts(parts: Iterable[bytes]) -> list[bytes]:
    """Join the parts of a body, so that a server sends headers and body at once.

    A worker may be killed between two sends, and a proxy that has received the headers can't try
    another server any more. Each body is in memory already or is a small file.
    """
    try:
        return [b"".join(parts)]
    finally:
        if close := getattr(parts, "close", None):
            close()


def split_for_pipe(lines: bytes) -> Iterator[bytes]:
    """Split log lines into chunks that a pipe writes atomically, so workers don't interleave."""
    begin = 0
    while begin < len(lines):
        end = lines.rfind(b"\n", begin, begin + select.PIPE_BUF) + 1
        end = end or (lines.index(b"\n", begin) + 1)  # a line that is longer than a pipe's buffer
        yield lines[begin:end]
        begin = end


def _log_line(record: _RequestRecord) -> _LogLine:
    milliseconds = record.time_ns // 1_000_000
    return _LogLine(
        f"{_format_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00",
        record.request_id,
        record.method[:20],
        record.path[:200],
        int(record.status),
        round(record.seconds, 6),
        "info",
        "request",
        record.caller,
        record.traceparent,
    )


@lru_cache(maxsize=4)
def _format_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
