"""Errors as RFC 9457 problem details, in the Open Inference Protocol's format, or as a page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from flask import Flask, Response, current_app, render_template, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from peerloan.errors import PeerLoanError
from peerloan.formatting import show_value
from peerloan.loan import Problem, Suggestions

log = logging.getLogger(__name__)
_API_PREFIXES = ("/v1/", "/openapi.json", "/healthz", "/readyz", "/metrics")
# An error of the protocol is one sentence with at most this many wrong values.
_NAMED = 3
# The end of the prediction address in KServe's version 1 and in TensorFlow Serving.
_PREDICT = ":predict"
# Shorter addresses are not compared for similarity.
_SHORTEST_NAME = 3


class RequestError(PeerLoanError):
    """A request that can't be answered.

    It has a status, a sentence, all wrong fields, and further members of the problem.
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


def ledger_unavailable(detail: str) -> RequestError:
    """Return the problem of a ledger that can't be read or written at present."""
    return RequestError(503, "Ledger Unavailable", detail, headers={"Retry-After": "2"})


def register(app: Flask) -> None:
    """Register the handlers that answer every error of the application."""

    @app.errorhandler(RequestError)
    def request_error(error: RequestError) -> Response:
        return answer(error)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        headers = {
            name: value
            for name, value in error.get_headers()
            if name.lower() not in ("content-type", "content-length")
        }
        return answer(RequestError(error.code or 500, error.name, _detail(error), headers=headers))

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        request_id = request.environ.get("peerloan.request_id")
        where = f"{request.method[:20]} {request.path[:200]}, request {request_id}"
        log.error("unexpected error on %s", where, exc_info=error)
        detail = "Something went wrong here. The request was not answered; the log has the cause."
        return answer(RequestError(500, "Internal Server Error", detail))


_TOO_LARGE = (
    "The request is larger than 5 MB. Send fewer loans at once, or score the book as a file."
)


def _detail(error: HTTPException) -> str:
    """Describe Flask's error in a sentence with the next step."""
    if isinstance(error, MethodNotAllowed):
        allowed = sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"})
        method = show_value(request.method).strip("'")
        detail = f"Expected {' or '.join(allowed)} at this address, given {method}."
        if request.path.endswith(_PREDICT):
            detail += f" Send loans to POST {request.root_path}/v1/predictions."
        return detail
    if isinstance(error, NotFound):
        near = _nearest_address(request.path)
        hint = f" Did you mean {request.root_path}{near}?" if near else ""
        return f"There is nothing at this address.{hint} {request.root_path}/docs lists every one."
    return _TOO_LARGE if error.code == 413 else error.description or ""


def _nearest_address(path: str) -> str | None:
    """Return the address that a misspelt one most likely means, if one is similar."""
    adapter = current_app.create_url_adapter(request)
    for spelling in (path.rstrip("/"), path.rstrip("/").lower()):
        if adapter is not None and spelling and adapter.allowed_methods(spelling):
            return spelling
    last_parts = {
        rule.rule.rpartition("/")[2]: rule.rule
        for rule in current_app.url_map.iter_rules()
        if not rule.arguments and len(rule.rule) > _SHORTEST_NAME
    }
    near = Suggestions().nearest(path.rstrip("/").rpartition("/")[2], tuple(last_parts))
    return last_parts[near] if near else None


def wants_problem(path: str) -> bool:
    """Whether the caller is a program and not a person with a browser.

    The address or the request's headers decide.
    """
    if path.startswith(_API_PREFIXES) or _is_protocol(path):
        return True
    accepted = request.accept_mimetypes
    html = accepted["text/html"]
    json = max(accepted["application/json"], accepted["application/problem+json"])
    # Tools like curl accept anything; then the request's content type decides.
    return json > html if json != html else request.is_json


def sentence(problems: Sequence[Problem], named: int = 1, where: str = " in errors") -> str:
    """Describe the first problems in words, and the number and place of the others."""
    texts = [
        f"{each.field if each.loan is None else f'loan {each.loan}, {each.field}'}: "
        f"expected {each.expected}, given {each.given}"
        for each in problems[:named]
    ]
    if (more := len(problems) - named) > 0:
        texts.append(f"and {more:,} more{where}")
    return "; ".join(texts)


def _is_protocol(path: str) -> bool:
    """Whether an address belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def answer(error: RequestError) -> Response:
    """Answer an error in the format of the requested address."""
    content: str | bytes
    status, detail = error.status, error.detail
    if _is_protocol(request.path):
        status = 400 if status == 422 else status  # the protocol has no 422
        detail = sentence(error.problems, _NAMED, "") if error.problems else detail
        content, kind = msgspec.json.encode({"error": detail}), "application/json"
    elif wants_problem(request.path):
        body = {"type": "about:blank", "title": error.title, "status": status, "detail": detail}
        if error.problems:
            body["errors"] = error.problems  # the JSON encoder handles them
        content, kind = msgspec.json.encode(body | error.members), "application/problem+json"
    else:
        content = render_template("error.html", title=error.title, detail=detail)
        kind = "text/html; charset=utf-8"
    response = Response(content, status, content_type=kind)
    response.headers.update(error.headers)
    return response
