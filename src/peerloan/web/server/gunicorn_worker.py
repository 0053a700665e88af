"""Gunicorn's threads, changed in private parts: when a head is sent, and how long a client is
waited for.

Import it through `gunicorn_conf`, which knows what to do with another Gunicorn.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

# How long a client may say nothing in the middle of a request before the thread is taken back.
SILENT_SECONDS = 10


class _Gathered:
    """Stands for a socket while what is sent at once is put together."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


class _Response(wsgi.Response):  # type: ignore[misc]
    """Sends the head with the first part of the body.

    Between two sends a worker may be killed, and a proxy that has seen a head can't ask another
    server any more.
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
    """Gunicorn's threads, with an end to waiting for a client that says nothing.

    Gunicorn's own time limit doesn't reach bodies: a few clients that stop half-way through one
    would keep every thread. One that sends a byte now and then is ended by `body_waits`.
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
