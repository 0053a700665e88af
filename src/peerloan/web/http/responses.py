"""Makes JSON responses, and checks that a request's body is JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Response, request

from peerloan.formatting import show_value
from peerloan.web.http.problems import RequestError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# The header with the value `true` of a response that repeats the first one to an Idempotency-Key.
REPLAYED_HEADER = "Idempotency-Replayed"


class RawResponse:
    """A complete response with status 200, which the lean Flask sends unchanged.

    It takes less time than Flask's `Response`. Hooks that run after a view are skipped.
    """

    __slots__ = ("_content", "_content_type")

    def __init__(self, content: bytes, content_type: str) -> None:
        self._content, self._content_type = content, content_type

    def __call__(
        self,
        environ: WSGIEnvironment,  # noqa: ARG002
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Send the response, as a WSGI application does."""
        length = str(len(self._content))
        start_response("200 OK", [("Content-Type", self._content_type), ("Content-Length", length)])
        return [self._content]


def as_json(body: Any, status: int = 200) -> Response:
    """Return a response with a body in JSON."""
    return Response(msgspec.json.encode(body), status, content_type="application/json")


def require_json() -> None:
    """Raise RequestError 415 if the request's Content-Type is not JSON."""
    if not request.is_json:
        raise RequestError(
            415,
            "Unsupported Media Type",
            "Content-Type: expected application/json, given "
            + (show_value(request.mimetype) if request.mimetype else "nothing")
            + "; send the body as JSON with that header",
        )
