"""Entries: what a request stores in the ledger at once, and the results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from peerloan.ledger.records import Record

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


class Entry(NamedTuple):
    """A request's decisions, which are stored all or not at all.

    `size` is the approximate size of their loans in bytes.
    """

    records: Sequence[Record]
    key: Key | None = None
    size: int = 0


class First(NamedTuple):
    """Result: the same request used the key before; `ids` are its decisions."""

    ids: list[bytes]


class OtherRequest(NamedTuple):
    """Result: another request used the key before."""


# None: stored.
Result = First | OtherRequest | None
