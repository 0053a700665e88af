"""Runs Granian for `peerloan serve`."""

from __future__ import annotations

import gc
import logging.config
from collections.abc import Callable
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from peerloan.web.auth import loopback
from peerloan.web.http.body_waits import THREADS
from peerloan.web.http.flask_application import find_lean_flask
from peerloan.web.http.tested_libraries import load_private, log_untested
from peerloan.web.server.bind_address import find_address
from peerloan.web.server.json_log import JsonFormatter
from peerloan.web.server.shutdown import GRACE_SECONDS

# Granian's messages go to the service's log, not among the lines of requests.
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonFormatter}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {
        "_granian": {"handlers": ["stderr"], "propagate": False},
        "peerloan": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def serve(address: str, port: int, workers: int) -> None:
    """Serve on a numeric address until stopped. Raises AddressError or NoWorkerStarted."""
    find_address(address, port, "peerloan serve")
    run("peerloan.web.server.wsgi:application", address, port, workers)


def run(factory: str, address: str, port: int, workers: int) -> None:
    """Run a WSGI application factory, `module:function`, in each of the workers.

    Raises NoWorkerStarted. If Granian's public interface is used only, Granian ends the process
    instead.
    """
    loopback.announce([address])
    options = _options(address, port, workers)
    logging.config.dictConfig(_LOGGING)
    find_lean_flask()  # called here, so that workers don't log it again
    run_own = load_private("granian", lambda: _own_server(factory, options))
    log_untested()
    # Workers share memory with this process until they write to it. The garbage collector would
    # write to every object that it inspects, so freeze them.
    gc.collect()
    gc.freeze()
    if run_own is not None:
        run_own()
    else:
        Granian(factory, factory=True, **options).serve()


def _own_server(factory: str, options: dict[str, Any]) -> Callable[[], None]:
    """Return the server class that restarts its workers and supports deferred responses."""
    from peerloan.web.server.workers import Server

    return Server(factory, **options).run


def _options(address: str, port: int, workers: int) -> dict[str, Any]:
    return {
        "address": address,
        "port": port,
        "interface": Interfaces.WSGI,
        "http": HTTPModes.http1,
        "websockets": False,
        "workers": workers,
        "blocking_threads": THREADS,
        "respawn_failed_workers": True,
        "workers_kill_timeout": GRACE_SECONDS,
        "log_level": LogLevels.error,
        "log_dictconfig": _LOGGING,
    }
