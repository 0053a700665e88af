"""Errors as RFC 9457 problem details, in the Open Inference Protocol's format, or as a page."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from flask import Flask, Response, current_app, render_template, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from peerloan.database import LedgerUnavailable
from peerloan.errors import PeerLoanError
from peerloan.formatting import show_value
from peerloan.loan import Problem, Suggestions

log = logging.getLogger(__name__)
_API_PREFIXES = ("/v1/", "/openapi.json", "/healthz", "/readyz", "/metrics")
# An error in the Open Inference Protocol is one sentence that names at most this many wrong values.
_MAX_PROTOCOL_PROBLEMS = 3
# The end of the prediction address in KServe's version 1 and in TensorFlow Serving.
_PREDICT_SUFFIX = ":predict"
# An address of at most this length is never suggested for a misspelt one.
_MAX_SHORT_ADDRESS = 3


class RequestError(PeerLoanError):
    """An error response: its status, title and detail, and the problem of each wrong field.

    `headers` are sent with the response. `members` are further members of the problem details.
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
    """Return the error of a ledger that can't be read or written at present."""
    return RequestError(503, "Ledger Unavailable", detail, headers={"Retry-After": "2"})


def register(app: Flask) -> None:
    """Register the error handlers of an application, which turn every error into a response."""

    @app.errorhandler(RequestError)
    def request_error(error: RequestError) -> Response:
        return answer(error)

    @app.errorhandler(LedgerUnavailable)
    def unavailable(error: LedgerUnavailable) -> Response:
        # The database's message goes to the log only.
        log.error("the ledger is unavailable on %s: %s", _request_name(), error)
        detail = "The ledger is unavailable, and nothing was stored; try again in a moment."
        return answer(ledger_unavailable(detail))

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
        log.error("unexpected error on %s", _request_name(), exc_info=error)
        detail = "An unexpected error occurred in the service. The log has its cause."
        return answer(RequestError(500, "Internal Server Error", detail))


def _request_name() -> str:
    """Return the method, path and id of this request, for the log."""
    request_id = request.environ.get("peerloan.request_id")
    return f"{request.method[:20]} {request.path[:200]}, request {request_id}"


_TOO_LARGE = (
    "The request is larger than 5 MB. Send fewer loans at once, or score them as a file: "
    "peerloan score FILE."
)


def _detail(error: HTTPException) -> str:
    """Describe Flask's error in a sentence, with what to do next."""
    if isinstance(error, MethodNotAllowed):
        allowed = sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"})
        method = show_value(request.method).strip("'")
        detail = f"Expected {' or '.join(allowed)} at this address, given {method}."
        if request.path.endswith(_PREDICT_SUFFIX):
            detail += f" Send loans to POST {request.root_path}/v1/predictions."
        return detail
    if isinstance(error, NotFound):
        near = _nearest_address(request.path)
        hint = f" Did you mean {request.root_path}{near}?" if near else ""
        listed = f"{request.root_path}/docs lists all addresses."
        return f"There is nothing at this address.{hint} {listed}"
    return _TOO_LARGE if error.code == 413 else error.description or ""


def _nearest_address(path: str) -> str | None:
    """Return the existing address that is most similar to a misspelt one; None if none is."""
    adapter = current_app.create_url_adapter(request)
    for spelling in (path.rstrip("/"), path.rstrip("/").lower()):
        if adapter is not None and spelling and adapter.allowed_methods(spelling):
            return spelling
    last_parts = {
        rule.rule.rpartition("/")[2]: rule.rule
        for rule in current_app.url_map.iter_rules()
        if not rule.arguments and len(rule.rule) > _MAX_SHORT_ADDRESS
    }
    near = Suggestions().nearest(path.rstrip("/").rpartition("/")[2], tuple(last_parts))
    return last_parts[near] if near else None


def wants_problem(path: str) -> bool:
    """Whether an error is answered as problem details (for a program) and not as a page.

    The address decides; at an address of pages, the request's headers do.
    """
    if path.startswith(_API_PREFIXES) or _is_protocol(path):
        return True
    accepted = request.accept_mimetypes
    html = accepted["text/html"]
    json = max(accepted["application/json"], accepted["application/problem+json"])
    # Tools such as curl accept anything; then the request's content type decides.
    return json > html if json != html else request.is_json


def sentence(problems: Sequence[Problem], limit: int = 1, where: str = " in errors") -> str:
    """Describe the first `limit` problems in words; of the others, their number and `where`."""
    texts = [
        f"{each.field if each.loan is None else f'loan {each.loan}, {each.field}'}: "
        f"expected {each.expected}, given {each.given}"
        for each in problems[:limit]
    ]
    if (more := len(problems) - limit) > 0:
        texts.append(f"and {more:,} more{where}")
    return "; ".join(texts)


def _is_protocol(path: str) -> bool:
    """Whether an address belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def answer(error: RequestError) -> Response:
    """Make the response of an error, in the format of the requested address."""
    content: str | bytes
    status, detail = error.status, error.detail
    if _is_protocol(request.path):
        status = 400 if status == 422 else status  # the protocol has no 422
        detail = sentence(error.problems, _MAX_PROTOCOL_PROBLEMS, "") if error.problems else detail
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
