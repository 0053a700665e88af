"""Whether only this machine can connect, announced by the listening process to its workers."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable

# An environment variable between processes, not a setting. It holds the listening process's id, so
# that a variable inherited from elsewhere has no effect. Without it, other machines are assumed to
# reach the service.
_NAME = "PEERLOAN_ON_LOOPBACK"


def announce(hosts: Iterable[str]) -> None:
    """Announce to workers that are started later on which hosts this process listens."""
    loopback = [is_loopback(host) for host in hosts]
    os.environ[_NAME] = str(os.getpid()) if loopback and all(loopback) else ""


def announced() -> bool:
    """Whether the listening process announced that only this machine can connect."""
    return os.environ.get(_NAME) == str(os.getppid())


def names_loopback(host: str) -> bool:
    """Whether a host's name itself means this machine. Any other name may be made to lead here."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are loopback addresses."""
    if names_loopback(host):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)
