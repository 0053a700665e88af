"""Stores with a champion, and changes to a store that the store itself would refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from peerloan.registry import Store

# The fixture `version_of`: the version of a candidate in the test's store.
VersionOf = Callable[[str], str]


def find_version(store: Store, candidate: str) -> str:
    """The first version of a candidate."""
    return next(v for v in store.versions() if store.manifest(v).candidate == candidate)


def champion_store(trained: Path, folder: Path, candidate: str = "additive") -> Store:
    """A copy of the trained store whose champion is this candidate."""
    shutil.copytree(trained, folder / "store")
    store = Store(folder / "store")
    store.promote(find_version(store, candidate))
    return store


def promote_unverified(store: Store, version: str) -> None:
    """Name a champion as `promote` does, but without its verification."""
    state = store.state()
    new = msgspec.structs.replace(
        state,
        number=state.number + 1,
        champion=version,
        rollback_line=(*state.rollback_line, version),
    )
    path = store.root / "aliases" / f"{new.number:06d}.json"
    path.write_bytes(msgspec.json.encode(new))


def challenge_unverified(store: Store, version: str) -> None:
    """Name a challenger as `challenge` does, but without its verification."""
    state = store.state()
    new = msgspec.structs.replace(state, number=state.number + 1, challenger=version)
    (store.root / "aliases" / f"{new.number:06d}.json").write_bytes(msgspec.json.encode(new))


def update_manifest(folder: Path) -> None:
    """Write the sizes and digests of a version's files to its manifest.

    A test that has changed a file calls this, so that only a deeper check can refuse the version.
    """
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest))
