"""Flask, without the work that this service never needs: each request of a prediction has it.

What these methods leave out is a third of an empty view's time (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from werkzeug.routing import MapAdapter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Application(Flask):
    """A Flask application on one host, without subdomains and without coroutines."""

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """What finds the view: which host was asked makes no difference."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            request.host,
            request.root_path,
            "",
            request.scheme,
            request.method,
            request.path,
            request.query_string.decode("latin-1"),
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself: none here is a coroutine."""
        return func


class Whole(Response):
    """An answer that is whole, in one piece: it leaves as it was made."""

    def __init__(self, content: bytes, content_type: str) -> None:
        super().__init__([content], 200, content_type=content_type)
        self._length = str(len(content))

    def __call__(
        self,
        environ: WSGIEnvironment,  # noqa: ARG002
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Answer, as WSGI has it."""
        start_response(self.status, [*self.headers, ("Content-Length", self._length)])
        return self.response  # type: ignore[return-value]
