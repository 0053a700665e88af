"""Settings of Gunicorn, for who prefers it to the server that `peerloan serve` starts.

gunicorn -c python:peerloan.service.gunicorn_conf 'peerloan.service.wsgi:application()'
"""

from __future__ import annotations

import logging
from typing import Any

import peerloan.web.telemetry.metrics  # noqa: F401  here, so that the workers share their figures
from peerloan.web.auth import loopback
from peerloan.web.http.application import find_lean_flask
from peerloan.web.http.body_waits import THREADS
from peerloan.web.http.tested_libraries import load_private, log_untested
from peerloan.web.server.json_log import start_logging


def _import_worker() -> type:
    from peerloan.web.server.gunicorn_worker import Worker

    return Worker


def _is_no_silence(record: logging.LogRecord) -> bool:
    """Whether a record is something else than a client's silence, which is no fault of ours."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, BlockingIOError)


worker_class = load_private("gunicorn", _import_worker) or "gthread"
workers = 2
# Each may wait for a body, or for a record's commit.
threads = THREADS
bind = "127.0.0.1:5000"
timeout = 30
graceful_timeout = 40
keepalive = 75
proc_name = "peerloan"
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """Called once, before any worker is made: what the log says here, no worker repeats."""
    start_logging()
    find_lean_flask()
    log_untested()


def pre_fork(server: Any, _worker: Any) -> None:
    """Called before each worker is made, by who listens."""
    # Without this attribute, which is no documented one, tokens are asked for from everybody.
    listeners = getattr(server, "LISTENERS", ())
    addresses = [listener.sock.getsockname() for listener in listeners]
    # Behind a socket that is a file stands whatever may open it, such as a proxy for the world.
    loopback.announce(each[0] if isinstance(each, tuple) else "" for each in addresses)


def post_worker_init(_worker: Any) -> None:
    """Called in each worker."""
    logging.getLogger("gunicorn.error").addFilter(_is_no_silence)
