"""Settings of Gunicorn, for who prefers it to the server that `peerloan serve` starts.

gunicorn -c python:peerloan.service.gunicorn_conf 'peerloan.service.wsgi:application()'
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

import peerloan.web.telemetry.metrics  # noqa: F401  here, so that the workers share their figures
from peerloan.web.auth import loopback
from peerloan.web.http.body_waits import THREADS

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


def _is_no_silence(record: logging.LogRecord) -> bool:
    """Whether a record is something else than a client's silence, which is no fault of ours."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, BlockingIOError)


worker_class = Worker
workers = 2
# Each may wait for a body, or for a record's commit.
threads = THREADS
bind = "127.0.0.1:5000"
timeout = 30
graceful_timeout = 40
keepalive = 75
proc_name = "peerloan"
loglevel = "warning"


def pre_fork(server: Any, _worker: Any) -> None:
    """Called before each worker is made, by who listens."""
    addresses = [listener.sock.getsockname() for listener in server.LISTENERS]
    # Behind a socket that is a file stands whatever may open it, such as a proxy for the world.
    loopback.announce(each[0] if isinstance(each, tuple) else "" for each in addresses)


def post_worker_init(_worker: Any) -> None:
    """Called in each worker."""
    logging.getLogger("gunicorn.error").addFilter(_is_no_silence)
