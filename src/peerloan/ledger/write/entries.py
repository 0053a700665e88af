"""Entries, each with the decisions of one request, and the results of storing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from peerloan.ledger.records import Record
from peerloan.ledger.write.idempotency import Key


class Entry(NamedTuple):
    """A request's decisions, which are stored all or not at all.

    Their ids rise. `key` is the request's idempotency key, if it has one. `size` is the approximate
    size of the loans in bytes.
    """

    records: Sequence[Record]
    key: Key | None = None
    size: int = 0


class RepeatedRequest(NamedTuple):
    """Result: the same request used the key before. `ids` are those of its decisions."""

    ids: list[bytes]


class KeyOfOtherRequest(NamedTuple):
    """Result: another request used the key before."""


# None: the decisions are stored.
Result = RepeatedRequest | KeyOfOtherRequest | None
