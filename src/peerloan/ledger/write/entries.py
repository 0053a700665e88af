"""Entries: what a request stores in the ledger at once, and the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from peerloan.ledger.records import Record
from peerloan.ledger.write.idempotency import Key


class Entry(NamedTuple):
    """A request's decisions, which are stored all or not at all.

    `size` is the approximate size of their loans in bytes.
    """

    records: Sequence[Record]
    key: Key | None = None
    size: int = 0


class RepeatedRequest(NamedTuple):
    """Result: the same request used the key before; `ids` are its decisions."""

    ids: list[bytes]


class OtherRequest(NamedTuple):
    """Result: another request used the key before."""


# None: stored.
Result = RepeatedRequest | OtherRequest | None
