"""A version's folder on its way out: in its place, set aside, or gone, whoever is killed or late.

Renaming decides which of several processes gets a folder, also on a file system that machines
share. Hidden names are no versions, to releases before either.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

from peerloan import atomic_files


def pending_path(folder: Path) -> Path:
    """Where a version's folder is while it is being deleted."""
    return folder.with_name(f".{folder.name}.deleting")


def move_aside(folder: Path) -> bool:
    """Take a version's folder from its place; False if it is neither there nor set aside."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(pending_path(folder))
    return pending_path(folder).is_dir()


def put_back(folder: Path) -> None:
    """Give a version's folder its place again, unless somebody else did or removed it."""
    with contextlib.suppress(FileNotFoundError):
        pending_path(folder).rename(folder)


def discard(folder: Path) -> bool:
    """Remove a folder that was set aside; False if somebody else did, or put it back."""
    gone = folder.with_name(f".{folder.name}.deleted.{secrets.token_hex(4)}")
    try:
        pending_path(folder).rename(gone)
    except FileNotFoundError:
        # A file server may have done it, and lost the answer: nobody else knows this name.
        if not gone.is_dir():
            return False
    atomic_files.sync(folder.parent)
    # What others left that were killed meanwhile, too.
    for left in folder.parent.glob(".*.deleted.*"):
        shutil.rmtree(left, ignore_errors=True)
    return True
