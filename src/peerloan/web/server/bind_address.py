"""The address that a server binds: resolved from a host name and checked before the start."""

from __future__ import annotations

import errno
import socket

from peerloan.errors import PeerLoanError


class AddressError(PeerLoanError, OSError):
    """An address can't be bound. The message names the option to change."""


def find_address(host: str, port: int, command: str, prefix: str = "--") -> str:
    """Return the numeric address of a host that can be bound now. Raises AddressError.

    If a name has several addresses, this returns the first one that belongs to this machine, IPv4
    before IPv6, because every client can use IPv4. Messages name the options of `command`:
    `prefix` with "host" or "port" after it.
    """
    unavailable = None
    for family, address in _resolve(host, port, prefix):
        try:
            _try_to_bind(family, address, port)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                unavailable = unavailable or error
                continue
            raise AddressError(_sentence(error, address, port, command, prefix)) from None
        return address
    raise AddressError(
        f"{prefix}host {host}: expected an address of this machine, such as 127.0.0.1, or 0.0.0.0 "
        "for all of its addresses"
    ) from unavailable


def _resolve(host: str, port: int, prefix: str) -> list[tuple[int, str]]:
    try:
        # An empty name would mean all addresses.
        if not host.strip():
            raise socket.gaierror(socket.EAI_NONAME, "a host's name is not empty")
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AddressError(
            f"{prefix}host {host!r} can't be resolved ({reason}): expected an address of this "
            "machine or its name, without brackets, scheme or port, such as 127.0.0.1 or ::1"
        ) from None
    addresses = dict.fromkeys((family, str(address[0])) for family, *_, address in infos)
    return sorted(addresses, key=lambda item: item[0] != socket.AF_INET)


def _try_to_bind(family: int, address: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _sentence(error: OSError, address: str, port: int, command: str, prefix: str) -> str:
    other = port + 1 if 1024 <= port < 65535 else 5000
    example = f"choose another, e.g. `{command} {prefix}port {other}`"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken: {example}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be used by this user: {example}"
    return f"can't listen on {address}, port {port} ({error.strerror}): {example}"
