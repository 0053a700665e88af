"""Gunicorn's threaded worker with changes of private parts.

The headers are sent with the first part of the body, and a silent client is disconnected. Import it
through `gunicorn_conf`, which falls back for untested releases of Gunicorn.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

# Longest silence of a client within a request before the thread is released.
SILENT_SECONDS = 10


class _Gathered:
    """A substitute for a socket that collects what is sent together."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


class _Response(wsgi.Response):  # type: ignore[misc]
    """Sends the headers with the first part of the body.

    A worker may be killed between two sends, and a proxy that has received headers can't try
    another server any more.
    """

    def write(self, arg: bytes) -> None:
        if self.headers_sent:
            super().write(arg)
            return
        gathered = _Gathered()
        sock = self.sock  # type: ignore[has-type]
        self.sock = gathered
        try:
            super().write(arg)
        finally:
            self.sock = sock
        sock.sendall(b"".join(gathered.sent))


class Worker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threaded worker with a time limit for silent clients.

    Gunicorn's own time limit doesn't cover bodies: a few clients that stop in the middle of one
    would occupy every thread. `body_waits` ends a client that sends a byte now and then.
    """

    def init_process(self) -> None:
        """Called in the new process; serves until it ends."""
        wsgi.Response = _Response
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Serve a connection; receiving from it fails after SILENT_SECONDS without a byte."""
        limit = struct.pack("ll", SILENT_SECONDS, 0)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        return super().handle(conn)
