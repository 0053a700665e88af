"""Serves the application under the path prefix at which a proxy publishes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class PathPrefixMiddleware:
    """Sets WSGI's SCRIPT_NAME to the configured prefix, and removes the prefix from the path.

    It works with a proxy that removes the prefix from paths, and with one that doesn't. Headers
    such as X-Forwarded-Prefix have no effect, because any client can set them. The server's
    SCRIPT_NAME is replaced, because Gunicorn takes it from a header.
    """

    def __init__(self, application: WSGIApplication, prefix: str) -> None:
        self._application, self._prefix, self._start = application, prefix, f"{prefix}/"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application with the path after the prefix."""
        environ["SCRIPT_NAME"] = self._prefix
        if self._prefix:
            path = environ["PATH_INFO"]
            if path.startswith(self._start) or path == self._prefix:
                environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        return self._application(environ, start_response)
