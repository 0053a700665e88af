"""Reading a file that is expected to be an ordinary one, of a size that is known or bounded.

A pipe has no end until its writer closes it, a device such as /dev/zero has none, and a sparse file
of gigabytes takes no room on the disk. So what was opened is looked at before a byte is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from peerloan.errors import PeerLoanError

_KINDS: Mapping[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


class NotRegularFile(PeerLoanError, OSError):
    """Something at a path that is no regular file: a pipe, a device, a folder."""


class FileTooLarge(PeerLoanError, OSError):
    """A file of more bytes than expected; `size` says how many it has."""

    def __init__(self, path: Path, size: int, most_bytes: int) -> None:
        super().__init__(
            errno.EFBIG, f"has {size:,} bytes, expected at most {most_bytes:,}", str(path)
        )
        self.size = size


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file, or of the one that a link leads to.

    Raises OSError, whose `strerror` says in words what was found: NotRegularFile or FileTooLarge
    before anything is read. Never waits for a writer; a file system that stalls it can't help.
    """
    try:
        # Or the opening of a pipe would wait until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket can't be opened, nor a device that is not there
            raise _not_regular(path, path.stat().st_mode) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path, status.st_mode)
        if status.st_size > most_bytes:
            raise FileTooLarge(path, status.st_size, most_bytes)
        # One byte more than there should be shows a file that grows.
        content = _read(descriptor, status.st_size + 1)
    finally:
        os.close(descriptor)
    if len(content) > status.st_size:
        raise OSError(errno.EAGAIN, "grew while it was read", str(path))
    return content


def read_regular_text(path: Path, most_bytes: int) -> str:
    """As `read_regular_file`, UTF-8 decoded; raises UnicodeDecodeError, too."""
    return read_regular_file(path, most_bytes).decode("utf-8")


def _read(descriptor: int, most_bytes: int) -> bytes:
    """What is left of an open file, and no more than so many bytes."""
    parts = []
    left = most_bytes
    while left and (part := os.read(descriptor, left)):  # one call reads at most 2 GB
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _not_regular(path: Path, mode: int) -> NotRegularFile:
    found = next((name for name, is_kind in _KINDS.items() if is_kind(mode)), "something else")
    return NotRegularFile(errno.EINVAL, f"is {found}, expected a regular file", str(path))
