"""Whether only this machine can ask: the process that listens tells the ones that answer."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable

# A word between processes, no setting. Without it, others may be able to ask.
_NAME = "PEERLOAN_ON_LOOPBACK"


def tell(hosts: Iterable[str]) -> None:
    """Tell the workers that will be started where there is somebody listening."""
    if all(map(is_loopback, hosts)):
        os.environ[_NAME] = "yes"
    else:
        os.environ.pop(_NAME, None)


def told() -> bool:
    """Whether this worker was told that only this machine can ask."""
    return os.environ.get(_NAME) == "yes"


def is_loopback(host: str) -> bool:
    """Whether a host's every address leads from this machine to itself."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
