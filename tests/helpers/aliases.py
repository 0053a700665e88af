"""Aliases that are named without the verification that the store does."""

from __future__ import annotations

import msgspec

from peerloan.registry import Store


def alias_behind_the_back(store: Store, version: str) -> None:
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


def challenge_behind_the_back(store: Store, version: str) -> None:
    """Name a challenger as `challenge` does, but without its verification."""
    state = store.state()
    new = msgspec.structs.replace(state, number=state.number + 1, challenger=version)
    (store.root / "aliases" / f"{new.number:06d}.json").write_bytes(msgspec.json.encode(new))
