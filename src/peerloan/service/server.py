"""Granian, started by `peerloan serve`."""

from __future__ import annotations

import gc
import socket

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from peerloan.service import loopback
from peerloan.service.body_waits import THREADS
from peerloan.service.workers import GRACE_SECONDS, Server
from peerloan.service.wsgi import Json

# What Granian and this server have to say stands beside what the service says, not among requests.
_LOGGING = {
    "formatters": {"json": {"()": Json}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {
        "_granian": {"handlers": ["stderr"], "propagate": False},
        "peerloan": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


class PortTaken(OSError):
    """The address can't be listened on; says which and why."""


def serve(host: str, port: int, workers: int) -> None:
    """Serve until stopped; raises PortTaken."""
    check_port(host, port)
    run("peerloan.service.wsgi:application", host, port, workers)


def run(factory: str, host: str, port: int, workers: int) -> None:
    """Run what makes a WSGI application, `module:function`, in each of the workers.

    Raises NoWorkerStarted.
    """
    loopback.tell([host])
    # A worker shares what is in memory here until it writes to it, and the collector would write
    # to all that it looks at.
    gc.collect()
    gc.freeze()
    Server(
        factory,
        address=host,
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
