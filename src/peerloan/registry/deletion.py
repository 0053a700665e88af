"""Deleting a version's folder: give it a hidden name, then remove it or put it back.

A rename is atomic, so only one of several processes succeeds, also on a shared file system. If a
process is killed in between, another deletion of the version completes the work. No release takes a
folder with a hidden name for a version.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

from peerloan import atomic_files
from peerloan.registry.alias_state import translate_read_errors

_PENDING = ".deleting"


def pending_path(folder: Path) -> Path:
    """Return the path of a version's folder while it is being deleted."""
    return folder.with_name(f".{folder.name}{_PENDING}")


def list_pending(versions: Path) -> list[str]:
    """List the versions whose deletion is in progress or was interrupted. Raises StoreFault."""
    with translate_read_errors(versions):
        return sorted(
            path.name[1:].removesuffix(_PENDING) for path in versions.glob(f".*{_PENDING}")
        )


def hide(folder: Path) -> bool:
    """Rename a version's folder for deletion.

    Returns whether it has the hidden name now, also if another process renamed it.
    """
    with contextlib.suppress(FileNotFoundError):
        folder.rename(pending_path(folder))
    return pending_path(folder).is_dir()


def put_back(folder: Path) -> None:
    """Give a folder its name back, unless another process did so or removed the folder."""
    with contextlib.suppress(FileNotFoundError):
        pending_path(folder).rename(folder)


def discard(folder: Path) -> bool:
    """Remove a hidden folder; False if another process removed it or put it back."""
    doomed = folder.with_name(f".{folder.name}.deleted.{secrets.token_hex(4)}")
    try:
        pending_path(folder).rename(doomed)
    except FileNotFoundError:
        # A file server may rename the folder and lose the response. No other process uses this
        # name, so if the folder is there, this rename succeeded.
        if not doomed.is_dir():
            return False
    atomic_files.sync(folder.parent)
    # Also remove folders that killed processes have left.
    for path in folder.parent.glob(".*.deleted.*"):
        shutil.rmtree(path, ignore_errors=True)
    return True
