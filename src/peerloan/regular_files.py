"""Read regular files of a bounded size.

Reading a pipe may block forever, a device such as /dev/zero never ends, and a sparse file may have
gigabytes without using space on the disk. So type and size are checked before a file is read.
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
    """A path that is not a regular file: a folder, pipe, socket or device."""


class FileTooLarge(PeerLoanError, OSError):
    """A file that is too large; `size` is its size in bytes."""

    def __init__(self, path: Path, size: int, most_bytes: int) -> None:
        super().__init__(
            errno.EFBIG, f"has {size:,} bytes, expected at most {most_bytes:,}", str(path)
        )
        self.size = size


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """Read a regular file of at most `most_bytes`; follows symbolic links.

    Raises OSError, with the reason as `strerror`: NotRegularFile and FileTooLarge are raised before
    anything is read. Never waits for the writer of a pipe, but can wait for a stalled file system.
    """
    try:
        # O_NONBLOCK: otherwise opening a pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise _not_regular(path, path.stat().st_mode) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path, status.st_mode)
        if status.st_size > most_bytes:
            raise FileTooLarge(path, status.st_size, most_bytes)
        # Try to read one byte more, to notice a file that grows.
        content = _read(descriptor, status.st_size + 1)
    finally:
        os.close(descriptor)
    if len(content) > status.st_size:
        raise OSError(errno.EAGAIN, "grew while it was read", str(path))
    return content


def read_regular_text(path: Path, most_bytes: int) -> str:
    """Read a file as `read_regular_file` does, as UTF-8; can also raise UnicodeDecodeError."""
    return read_regular_file(path, most_bytes).decode("utf-8")


def _read(descriptor: int, most_bytes: int) -> bytes:
    """Read an open file to its end, at most `most_bytes`."""
    parts = []
    left = most_bytes
    while left and (part := os.read(descriptor, left)):  # one call reads at most 2 GB
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _not_regular(path: Path, mode: int) -> NotRegularFile:
    kind = next((name for name, is_kind in _KINDS.items() if is_kind(mode)), "something else")
    return NotRegularFile(errno.EINVAL, f"is {kind}, expected a regular file", str(path))
