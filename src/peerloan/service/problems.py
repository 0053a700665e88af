"""Errors as RFC 9457 problem details; a page gets a readable page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException

from peerloan.loan import Problem

log = logging.getLogger(__name__)
_API_PREFIXES = ("/v1/", "/openapi.json", "/healthz", "/readyz", "/metrics")


class RequestError(Exception):
    """A request that can't be answered: status, one sentence, every wrong field, or other members
    of the problem.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        problems: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.problems = list(problems)
        self.headers = dict(headers or {})
        self.members = members


def register(app: Flask) -> None:
    """Answer every error of the application in its form."""

    @app.errorhandler(RequestError)
    def request_error(error: RequestError) -> Response:
        extra = dict(error.members)
        if error.problems:
            extra["errors"] = [asdict(problem) for problem in error.problems]
        return _answer(error.status, error.title, error.detail, error.headers, extra)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        headers = {
            name: value
            for name, value in error.get_headers()
            if name.lower() not in ("content-type", "content-length")
        }
        detail = _DETAILS.get(error.code or 500, error.description or "")
        return _answer(error.code or 500, error.name, detail, headers, {})

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        log.error("unexpected error on %s %s", request.method, request.path, exc_info=error)
        detail = "Something went wrong here. The request was not answered; the log has the cause."
        return _answer(500, "Internal Server Error", detail, {}, {})


_DETAILS = {
    404: "There is nothing at this address.",
    413: "The request is larger than 5 MB. Send fewer loans at once, or score the book as a file.",
}


def is_api(path: str) -> bool:
    """Whether who asks at this address is a program rather than a person with a browser."""
    return path.startswith(_API_PREFIXES)


def sentence(problems: Sequence[Problem]) -> str:
    """The first problem in words, and how many more there are."""
    first = problems[0]
    where = first.field if first.loan is None else f"loan {first.loan}, {first.field}"
    more = f"; and {len(problems) - 1} more in errors" if len(problems) > 1 else ""
    return f"{where}: expected {first.expected}, given {first.given}{more}"


def _answer(
    status: int, title: str, detail: str, headers: Mapping[str, str], extra: dict[str, Any]
) -> Response:
    if is_api(request.path):
        body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        content: str | bytes = msgspec.json.encode(body | extra)
        kind = "application/problem+json"
    else:
        content = render_template("error.html", title=title, detail=detail)
        kind = "text/html; charset=utf-8"
    response = Response(content, status, content_type=kind)
    response.headers.update(headers)
    return response
