"""Whether only this machine can connect: the listening process announces it to its workers."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable

# A word between processes, no setting: it holds the number of the process that listens, so that
# one which is inherited from elsewhere says nothing. Without it, others may be able to ask.
_NAME = "PEERLOAN_ON_LOOPBACK"


def announce(hosts: Iterable[str]) -> None:
    """Announce to the workers that will be started on which hosts this process listens."""
    loopback = [is_loopback(host) for host in hosts]
    os.environ[_NAME] = str(os.getpid()) if loopback and all(loopback) else ""


def announced() -> bool:
    """Whether the listening process announced that only this machine can connect."""
    return os.environ.get(_NAME) == str(os.getppid())


def names_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name: any other may be made to lead here."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_loopback(host: str) -> bool:
    """Whether a host's every address leads from this machine to itself."""
    if names_loopback(host):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
