"""The folders of a store's versions: their names, and listing and reserving them.

A folder is a version only if it contains a manifest. The manifest is written last, so a folder
without one is a version that is being published, or whose publication was interrupted.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path

from peerloan.registry import deletion
from peerloan.registry.alias_state import StoreError, translate_read_errors
from peerloan.registry.manifest import MANIFEST, BundleError, read_manifest

_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


def list_versions(versions: Path) -> list[str]:
    """List the names of the versions in a folder, oldest first. Raises StoreFault."""
    with translate_read_errors(versions):
        if not versions.is_dir():
            return []
        folders = [
            path
            for path in versions.iterdir()
            if _VERSION.fullmatch(path.name) and has_manifest(path)
        ]
    return [path.name for path in sorted(folders, key=_age_key)]


def has_manifest(folder: Path) -> bool:
    """Whether a folder contains a manifest; True if that can't be read."""
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # the version is listed, and loading it reports the fault
        return True


def version_exists(versions: Path, name: str) -> bool:
    """Whether the folder of a version exists, possibly renamed for deletion. Raises StoreFault.

    False for a name that is not valid: it could be the path of a folder outside the store.
    """
    if not _VERSION.fullmatch(name):
        return False
    folder = versions / name
    with translate_read_errors(versions):
        # The regular path is checked twice, because the folder may be put back between the checks.
        places = (folder, deletion.pending_path(folder), folder)
        return any(place.is_dir() for place in places)


def reserve_folder(versions: Path, name: str) -> Path:
    """Create the folder of a new version. If the name is taken, a number is added to it.

    Raises StoreError if the name is not valid, or OSError.
    """
    if not _VERSION.fullmatch(name):
        raise StoreError(
            f"version: expected a name of at most 100 characters a-z, 0-9, - and ., given {name!r}"
        )
    versions.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = versions / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            if not deletion.pending_path(folder).exists():
                return folder
            # The deleted folder may be put back, so its name is free only after the deletion.
            with contextlib.suppress(OSError):
                folder.rmdir()
    raise AssertionError("unreachable: the loop has no end")


def _age_key(folder: Path) -> tuple[str, str]:
    """Return a sort key: the time of creation, then the name."""
    try:
        return read_manifest(folder)[0].created, folder.name
    except BundleError:  # it is listed nevertheless, so that a person sees it
        return "", folder.name
