"""Write files atomically: after a crash or kill a file is complete or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

# The default mode of new files, before the umask.
_MODE = 0o666


def publish_file(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Create a file atomically; raises FileExistsError if it exists."""
    # Unlike a rename, a hard link is atomic and never replaces an existing file.
    _write_and_move(path, content, mode, os.link)


def replace_file(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Create or replace a file atomically."""
    _write_and_move(path, content, mode, os.replace)


def _write_and_move(
    path: Path, content: bytes, mode: int, move: Callable[[Path, Path], None]
) -> None:
    """Write a hidden temporary file in the same folder, then give it its name by `move`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(temporary, content, mode)
        move(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # a leftover is hidden and does no harm
            temporary.unlink(missing_ok=True)
    sync(path.parent)


def remove(folder: Path, first: str) -> None:
    """Remove a folder and its content; its file `first` is removed before anything else."""
    (folder / first).unlink(missing_ok=True)
    shutil.rmtree(folder)


def write(path: Path, content: bytes, mode: int = _MODE) -> None:
    """Write a file and sync it to the disk. Not atomic."""
    path.touch(mode)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Sync a folder to the disk, so that new file names in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
