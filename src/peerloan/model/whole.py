"""Files and folders that are there whole or not at all, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path


def publish_file(path: Path, content: bytes) -> None:
    """Create a file whole, or not at all; raises FileExistsError if it is there already."""
    incoming = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(incoming, content)
        # A link is atomic and, other than a rename, never replaces what is there.
        os.link(incoming, path)
    finally:
        with contextlib.suppress(OSError):  # what is left over has a hidden name and harms nobody
            incoming.unlink(missing_ok=True)
    sync(path.parent)


def remove(folder: Path, first: str) -> None:
    """Remove a folder, this file of it before any other."""
    (folder / first).unlink(missing_ok=True)
    shutil.rmtree(folder)


def write(path: Path, content: bytes) -> None:
    """Write a file, and make it last."""
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
