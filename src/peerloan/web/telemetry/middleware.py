"""The outermost middleware: request ids, security headers, access log and metrics.

It records addresses, times and statuses, but nothing from a body or a query.
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
    Sent,
)
from peerloan.web.http.request_body import drop_body
from peerloan.web.telemetry import metrics
from peerloan.web.telemetry.background_batch import BackgroundBatch

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ID = re.compile(r"[0-9A-Za-z._-]{8,64}")
# W3C Trace Context: version ff is invalid, and so are ids with only zeros.
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
# Content only from this site, no framing, no inline scripts.
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
# Responses about loans must not be cached; styles and scripts set their own header.
_NO_STORE = ("Cache-Control", "no-store")
_encoder = msgspec.json.Encoder()


class _Seen(NamedTuple):
    """An answered request."""

    at: int  # nanoseconds since 1970
    request_id: str
    method: str
    path: str
    route: str
    status: str
    seconds: float
    caller: str
    trace: str


class _Line(msgspec.Struct, omit_defaults=True):
    """A request's line in the log."""

    time: str
    request_id: str
    method: str
    path: str
    status: int
    seconds: float
    # No defaults, because members with their default value are omitted.
    level: str
    message: str
    caller: str = ""
    traceparent: str = ""


class _Answer:
    """A response's status line and headers."""

    __slots__ = ("_environ", "headers", "line", "request_id", "route", "trace")

    def __init__(self, request_id: str, environ: WSGIEnvironment) -> None:
        self.request_id, self._environ = request_id, environ
        self.line, self.route = "500 Internal Server Error", "(none)"
        self.headers: list[tuple[str, str]] = []
        trace = environ.get("HTTP_TRACEPARENT", "")
        self.trace = trace if trace and _TRACE.fullmatch(trace) else ""

    def start(self, line: str, headers: list[tuple[str, str]], *_error: Any) -> Any:
        """WSGI's start_response; the last call counts."""
        self.line = line
        # Flask discards its request before this returns.
        if rule := getattr(self._environ.get("werkzeug.request"), "url_rule", None):
            self.route = rule.rule
        if "Cache-Control" not in dict(headers):
            headers.append(_NO_STORE)
        headers += _HEADERS
        headers.append(("X-Request-Id", self.request_id))
        if self.trace:
            headers.append(("Traceparent", self.trace))
        self.headers = headers


class AccessLogMiddleware:
    """A WSGI application with request ids, security headers, metrics and an access log.

    `log` gets a line for each request. Thread-safe.
    """

    def __init__(self, application: WSGIApplication, log: BinaryIO | None) -> None:
        self._application = application
        self._log = log
        self._batch = BackgroundBatch(self._report) if log else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, and record the request.

        A pending response is deferred if the server supports that (see `http.deferred`). Otherwise
        this waits for it.
        """
        began = time.perf_counter()
        request_id = environ.get("HTTP_X_REQUEST_ID", "")
        if not _ID.fullmatch(request_id):
            request_id = f"{random.getrandbits(128):032x}"
        environ["peerloan.request_id"] = request_id
        answer = _Answer(request_id, environ)
        try:
            body = _whole(self._application(environ, answer.start))
        except BaseException:
            self._note(environ, answer, began)
            raise
        # Removed, because it refers to the environment.
        pending: PendingResponse[Any] | None = environ.pop(PENDING_KEY, None)
        if pending is None:
            self._note(environ, answer, began)
            start_response(answer.line, answer.headers)
            return body
        finish = partial(self._finish, pending, environ, answer, body, began)
        deferred: DeferredResponse | None = environ.get(DEFERRED_KEY)
        if deferred is None:
            pending.wait()
            line, headers, content = finish()
            start_response(line, headers)
            return [content]
        pending.on_resolved(lambda: deferred.send(finish, quickly=pending.outcome is None))
        return DEFERRED

    def _finish(
        self,
        pending: PendingResponse[Any],
        environ: WSGIEnvironment,
        answer: _Answer,
        prepared: list[bytes],
        began: float,
    ) -> Sent:
        """Return the content of a resolved response, and record the request."""
        content = prepared[0]
        if (replacement := pending.replacement()) is not None:
            content = _whole(replacement(environ, answer.start))[0]
        self._note(environ, answer, began)
        return answer.line, answer.headers, content

    def _note(self, environ: WSGIEnvironment, answer: _Answer, began: float) -> None:
        status = answer.line[:3]
        if status >= "400":
            # A proxy that can't send its complete request reports that as a fault of the server.
            drop_body(environ)
        seen = _Seen(
            time.time_ns(),
            answer.request_id,
            environ["REQUEST_METHOD"],
            environ.get("PATH_INFO", ""),
            answer.route,
            status,
            time.perf_counter() - began,
            caller_name(environ),
            answer.trace,
        )
        if self._batch is None:
            self._report([seen])
        else:
            self._batch.put(seen)

    def _report(self, seen: list[_Seen]) -> None:
        metrics.count_requests(
            (each.method if each.method in _METHODS else "(other)", each.route, each.status)
            for each in seen
        )
        metrics.time_requests((each.route, each.seconds) for each in seen)
        metrics.flush()
        if self._log is not None:
            # If the log's reader is gone, the service must continue.
            with contextlib.suppress(OSError, ValueError):
                for lines in split_for_pipe(_encoder.encode_lines(map(_line, seen))):
                    self._log.write(lines)
                    self._log.flush()


def _whole(parts: Iterable[bytes]) -> list[bytes]:
    """Join a response to one part, which a server sends together with its headers.

    A worker may be killed between two sends, and a proxy that has received headers can't try
    another server any more. Every response is in memory anyway, or is a small file.
    """
    try:
        return [b"".join(parts)]
    finally:
        if close := getattr(parts, "close", None):
            close()


def split_for_pipe(lines: bytes) -> Iterator[bytes]:
    """Split log lines into chunks that a pipe writes atomically, so workers don't interleave."""
    at = 0
    while at < len(lines):
        end = (lines.rfind(b"\n", at, at + select.PIPE_BUF) + 1) or (lines.index(b"\n", at) + 1)
        yield lines[at:end]
        at = end


def _line(seen: _Seen) -> _Line:
    milliseconds = seen.at // 1_000_000
    return _Line(
        f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00",
        seen.request_id,
        seen.method[:20],
        seen.path[:200],
        int(seen.status),
        round(seen.seconds, 6),
        "info",
        "request",
        seen.caller,
        seen.trace,
    )


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
