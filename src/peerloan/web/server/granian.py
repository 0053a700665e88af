"""Runs the Granian server for `peerloan serve`."""

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

# Granian's messages go to the service's log on standard error, not to the access log.
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
    """Serve the application that `factory` makes in each worker; `factory` is `module:function`.

    Raises NoWorkerStarted. If only Granian's public interface is used, Granian ends the process
    instead.
    """
    loopback.announce([address])
    options = _options(address, port, workers)
    logging.config.dictConfig(_LOGGING)
    find_lean_flask()  # called before the fork, so that workers don't log its warning again
    run_server = load_private("granian", lambda: _supervising_server(factory, options))
    log_untested()
    # Workers share this process's memory pages until they write to them. The garbage collector
    # writes to each object that it inspects, so freeze the objects.
    gc.collect()
    gc.freeze()
    if run_server is not None:
        run_server()
    else:
        Granian(factory, factory=True, **options).serve()


def _supervising_server(factory: str, options: dict[str, Any]) -> Callable[[], None]:
    """Make the server that restarts its workers and defers responses; return its `run`."""
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
