"""What a request hands to the ledger at once, and what becomes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from peerloan.ledger.records import Record

# How long a key is remembered.
KEY_MS = 24 * 3600 * 1000


class Key(NamedTuple):
    """A caller's Idempotency-Key, and the digest of the request that carried it."""

    caller: str
    key: str
    request: bytes

    @classmethod
    def of(cls, caller: str, key: str, *request: bytes) -> Key:
        """The key of a request, given the parts that make it what it is."""
        digest = hashlib.sha256()
        for part in request:
            digest.update(len(part).to_bytes(8) + part)
        return cls(caller, key, digest.digest())


class Entry(NamedTuple):
    """A request's decisions: all of them are kept, or none; `size` is about how many bytes of loans
    they hold.
    """

    records: Sequence[Record]
    key: Key | None = None
    size: int = 0


class First(NamedTuple):
    """The key was used before by the same request: these were its decisions."""

    ids: list[bytes]


class OtherRequest(NamedTuple):
    """The key was used before by another request."""


# None: kept.
Result = First | OtherRequest | None
