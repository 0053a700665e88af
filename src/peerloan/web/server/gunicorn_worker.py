"""Gunicorn's threaded worker with two changes, by private parts of Gunicorn.

It sends headers together with the first part of the body, and disconnects silent clients. Import it
through `gunicorn_conf`, which uses Gunicorn's unchanged worker if the installed release was not
tested.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

# Longest time without a byte from a client in the middle of a request.
SILENT_SECONDS = 10


class _Buffer:
    """A substitute for a socket that collects the data instead of sending it."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)


class _Response(wsgi.Response):  # type: ignore[misc]
    """A response whose headers are sent with the first part of the body.

    A worker may be killed between two sends, and a proxy that has received the headers can't try
    another server any more.
    """

    def write(self, arg: bytes) -> None:
        if self.headers_sent:
            super().write(arg)
            return
        buffer = _Buffer()
        sock = self.sock  # type: ignore[has-type]
        self.sock = buffer
        try:
            super().write(arg)
        finally:
            self.sock = sock
        sock.sendall(b"".join(buffer.parts))


class Worker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threaded worker with a time limit for silent clients.

    Gunicorn's time limit doesn't cover request bodies: a few clients that stop in the middle of a
    body would occupy all threads. Clients that send a byte now and then are ended by `body_waits`.
    """

    def init_process(self) -> None:
        """Serve in the new worker process until it ends. Gunicorn calls this."""
        wsgi.Response = _Response
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Serve a connection. Receiving from it fails after SILENT_SECONDS without a byte."""
        limit = struct.pack("ll", SILENT_SECONDS, 0)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        return super().handle(conn)
