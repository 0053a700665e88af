"""Gunicorn, started by `peerloan serve`."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

from peerloan.service.app import create_app
from peerloan.settings import Settings

THREADS = 4
# How long a client may say nothing in the middle of a request before the thread is taken back.
SILENT_SECONDS = 10


class PortTaken(OSError):
    """The address can't be listened on; says which and why."""


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
    would keep every thread. One that sends a byte now and then still can; a server in front that
    takes in whole requests, as Nginx does, is what helps against that.
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


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self._settings = settings
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        logging.getLogger("gunicorn.error").addFilter(_is_no_silence)
        # In each worker, after the fork: every worker has its own champion and its own thread.
        return create_app(self._settings)


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Serve until stopped; raises PortTaken."""
    check_port(host, port)
    _Server(settings, gunicorn_options(host, port, workers)).run()


def gunicorn_options(host: str, port: int, workers: int) -> dict[str, Any]:
    """How Gunicorn runs the application."""
    return {
        "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "workers": workers,
        "worker_class": Worker,
        "threads": THREADS,
        "timeout": 30,
        "graceful_timeout": 30,
        "keepalive": 75,
        "proc_name": "peerloan",
        "loglevel": "warning",
    }


def check_port(host: str, port: int) -> None:
    """Raise PortTaken unless the address can be listened on now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PortTaken(f"can't listen on {host}:{port}: {error.strerror}") from None
