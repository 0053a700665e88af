"""Files and folders that are there whole or not at all, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

# As a program's files are made, but for what the user's own mask takes.
_MODE = 0o666


def publish_file(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Create a file whole, or not at all; raises FileExistsError if it is there already."""
    # A link is atomic and, other than a rename, never replaces what is there.
    _put(path, content, mode, os.link)


def replace_file(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Write a file whole, in place of what is there."""
    _put(path, content, mode, os.replace)


def _put(path: Path, content: bytes, mode: int, place: Callable[[Path, Path], None]) -> None:
    incoming = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(incoming, content, mode)
        place(incoming, path)
    finally:
        with contextlib.suppress(OSError):  # what is left over has a hidden name and harms nobody
            incoming.unlink(missing_ok=True)
    sync(path.parent)


def remove(folder: Path, first: str) -> None:
    """Remove a folder, this file of it before any other."""
    (folder / first).unlink(missing_ok=True)
    shutil.rmtree(folder)


def write(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Write a file, and make it last."""
    path.touch(mode)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make new names in a folder last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
