"""Idempotency keys: a repeated request returns the same decisions for a day."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

# How long a key is valid.
KEY_MS = 24 * 3600 * 1000


class Key(NamedTuple):
    """A caller's Idempotency-Key, and the digest of the request that carried it."""

    caller: str
    key: str
    request: bytes

    @classmethod
    def of(cls, caller: str, key: str, *request: bytes) -> Key:
        """Return the key of a request, with a digest of the request's parts."""
        digest = hashlib.sha256()
        for part in request:
            digest.update(len(part).to_bytes(8) + part)
        return cls(caller, key, digest.digest())


# A key, its time, and the ids of its decisions, joined.
Claim = tuple[Key, int, bytes]
KEY_COLUMNS = "caller, key, time_ms, request, decisions"
# An expired key may be taken again.
CLAIM = (
    "ON CONFLICT (caller, key) DO UPDATE SET time_ms = excluded.time_ms, "
    "request = excluded.request, decisions = excluded.decisions "
    f"WHERE idempotency_keys.time_ms < excluded.time_ms - {KEY_MS} RETURNING caller, key"
)
