"""Responses that are sent as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Whole:
    """A response of status 200 in one piece: a WSGI application, which plain Flask takes too."""

    __slots__ = ("_content", "_content_type")

    def __init__(self, content: bytes, content_type: str) -> None:
        self._content, self._content_type = content, content_type

    def __call__(
        self,
        environ: WSGIEnvironment,  # noqa: ARG002
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Answer, as WSGI has it."""
        length = str(len(self._content))
        start_response("200 OK", [("Content-Type", self._content_type), ("Content-Length", length)])
        return [self._content]
