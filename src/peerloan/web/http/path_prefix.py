"""The path prefix under which a proxy publishes the service, as WSGI's SCRIPT_NAME."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class PathPrefixMiddleware:
    """A WSGI application under the configured prefix, whether or not the proxy removes it.

    Headers have no effect: anybody who reaches the service can set X-Forwarded-Prefix. A server's
    SCRIPT_NAME, which Gunicorn takes from a header, is replaced too.
    """

    def __init__(self, application: WSGIApplication, prefix: str) -> None:
        self._application, self._prefix, self._folder = application, prefix, f"{prefix}/"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the request for the address after the prefix."""
        environ["SCRIPT_NAME"] = self._prefix
        if self._prefix:
            path = environ["PATH_INFO"]
            if path.startswith(self._folder) or path == self._prefix:
                environ["PATH_INFO"] = path[len(self._prefix) :] or "/"
        return self._application(environ, start_response)
