"""Granian, started by `peerloan serve`."""

from __future__ import annotations

import gc

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from peerloan.web.auth import loopback
from peerloan.web.http.body_waits import THREADS
from peerloan.web.server.bind_address import find_address
from peerloan.web.server.workers import GRACE_SECONDS, Server
from peerloan.web.server.wsgi import Json

# What Granian and this server have to say stands beside what the service says, not among requests.
_LOGGING = {
    "formatters": {"json": {"()": Json}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {
        "_granian": {"handlers": ["stderr"], "propagate": False},
        "peerloan": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def serve(address: str, port: int, workers: int) -> None:
    """Serve on a numeric address until stopped; raises AddressError or NoWorkerStarted."""
    find_address(address, port, "peerloan serve")
    run("peerloan.web.server.wsgi:application", address, port, workers)


def run(factory: str, address: str, port: int, workers: int) -> None:
    """Run what makes a WSGI application, `module:function`, in each of the workers.

    Raises NoWorkerStarted.
    """
    loopback.announce([address])
    # A worker shares what is in memory here until it writes to it, and the collector would write
    # to all that it looks at.
    gc.collect()
    gc.freeze()
    Server(
        factory,
        address=address,
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=workers,
        blocking_threads=THREADS,
        respawn_failed_workers=True,
        workers_kill_timeout=GRACE_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
    ).run()
