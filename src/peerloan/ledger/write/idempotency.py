"""Idempotency keys: for a day, a repeated request returns the decisions of the first one.

Source: the IETF draft "The Idempotency-Key HTTP Header Field".
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

# How long a key is valid.
KEY_MS = 24 * 3600 * 1000


class Key(NamedTuple):
    """A caller's Idempotency-Key, and the digest of the request that had it."""

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


# A key, the time of its decisions (milliseconds since 1970), and their ids, joined.
Claim = tuple[Key, int, bytes]
KEY_COLUMNS = "caller, key, time_ms, request, decisions"
# The end of an INSERT that claims keys. An expired key may be claimed again.
CLAIM = (
    "ON CONFLICT (caller, key) DO UPDATE SET time_ms = excluded.time_ms, "
    "request = excluded.request, decisions = excluded.decisions "
    f"WHERE idempotency_keys.time_ms < excluded.time_ms - {KEY_MS} RETURNING caller, key"
)
