"""Whether only this machine can connect: the listening process announces it to its workers."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable

# An environment variable between processes, not a setting. Its value is the id of the listening
# process, so that a variable inherited from another program has no effect. Without the variable,
# workers assume that other machines can connect.
_VARIABLE = "PEERLOAN_ON_LOOPBACK"


def announce(hosts: Iterable[str]) -> None:
    """Announce on which hosts this process listens, to workers that are started after this."""
    loopback = [is_loopback(host) for host in hosts]
    os.environ[_VARIABLE] = str(os.getpid()) if loopback and all(loopback) else ""


def announced() -> bool:
    """Whether the listening process announced that only this machine can connect."""
    return os.environ.get(_VARIABLE) == str(os.getppid())


def names_loopback(host: str) -> bool:
    """Whether a host is a loopback address or `localhost`. Other names may resolve to anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_loopback(host: str) -> bool:
    """Whether all addresses of a host are loopback addresses."""
    if names_loopback(host):
        return True
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in addresses)
