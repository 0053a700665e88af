"""Settings of Gunicorn, which can serve the application instead of `peerloan serve`.

gunicorn -c python:peerloan.service.gunicorn_conf 'peerloan.service.wsgi:application()'
"""

from __future__ import annotations

import logging
from typing import Any

import peerloan.web.telemetry.metrics  # noqa: F401  workers share metrics only if this process imports it
from peerloan.web.auth import loopback
from peerloan.web.http.body_waits import THREADS
from peerloan.web.http.flask_application import find_lean_flask
from peerloan.web.http.tested_libraries import load_private, log_untested
from peerloan.web.server.json_log import start_logging


def _import_worker() -> type:
    from peerloan.web.server.gunicorn_worker import Worker

    return Worker


def _is_not_silent_client(record: logging.LogRecord) -> bool:
    """Whether to log a record: all except those about a silent client, which is no fault."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, BlockingIOError)


worker_class = load_private("gunicorn", _import_worker) or "gthread"
workers = 2
# Each thread may wait for a body, or for a commit.
threads = THREADS
bind = "127.0.0.1:5000"
timeout = 30
graceful_timeout = 40
keepalive = 75
proc_name = "peerloan"
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """Start the log and write warnings, before any worker is started. Gunicorn calls this."""
    start_logging()
    find_lean_flask()
    log_untested()


def pre_fork(server: Any, _worker: Any) -> None:
    """Announce the listening addresses to the next worker. Gunicorn calls this before the fork."""
    # Gunicorn does not document this attribute. Without it, every caller needs a token.
    listeners = getattr(server, "LISTENERS", ())
    addresses = [listener.sock.getsockname() for listener in listeners]
    # A socket file counts as public: the client may be a proxy that forwards requests of anybody.
    loopback.announce(address[0] if isinstance(address, tuple) else "" for address in addresses)


def post_worker_init(_worker: Any) -> None:
    """Filter Gunicorn's log in a new worker. Gunicorn calls this."""
    logging.getLogger("gunicorn.error").addFilter(_is_not_silent_client)
