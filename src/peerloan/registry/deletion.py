"""Deleting a version's folder: rename it aside, then remove it or put it back.

A rename is atomic, so only one of several processes gets the folder, also on a shared file system.
A killed process leaves the folder in one of these states, and a retry completes the deletion. The
hidden names are not versions, for earlier releases either.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

from peerloan import atomic_files


def pending_path(folder: Path) -> Path:
    """The path of a version's folder while it is being deleted."""
    return folder.with_name(f".{folder.name}.deleting")


def move_aside(folder: Path) -> bool:
    """Rename a version's folder aside; False if it is neither in place nor aside."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(pending_path(folder))
    return pending_path(folder).is_dir()


def put_back(folder: Path) -> None:
    """Rename a folder back to its place, unless another process did so or removed it."""
    with contextlib.suppress(FileNotFoundError):
        pending_path(folder).rename(folder)


def discard(folder: Path) -> bool:
    """Remove a folder that was renamed aside; False if another process removed or restored it."""
    gone = folder.with_name(f".{folder.name}.deleted.{secrets.token_hex(4)}")
    try:
        pending_path(folder).rename(gone)
    except FileNotFoundError:
        # A file server may rename the folder and lose the response. Only this call knows the name.
        if not gone.is_dir():
            return False
    atomic_files.sync(folder.parent)
    # Also remove what killed processes left behind.
    for left in folder.parent.glob(".*.deleted.*"):
        shutil.rmtree(left, ignore_errors=True)
    return True
