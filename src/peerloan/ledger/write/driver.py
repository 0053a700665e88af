"""The few statements of the writer, by each database's own driver: they are what a decision waits
for, and SQLAlchemy's way through them costs more than the databases do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from peerloan.ledger.write.entries import KEY_MS, Key

Row = tuple[Any, ...]
# A key, the time, and the ids that belong to it.
Claim = tuple[Key, int, bytes]
KEY_COLUMNS = "caller, key, time_ms, request, decisions"
# A key of another day is no longer remembered.
CLAIM = (
    "ON CONFLICT (caller, key) DO UPDATE SET time_ms = excluded.time_ms, "
    "request = excluded.request, decisions = excluded.decisions "
    f"WHERE idempotency_keys.time_ms < excluded.time_ms - {KEY_MS} RETURNING caller, key"
)


class Backend(Protocol):
    """A connection of a writer's own. What fails raises LedgerUnavailable or RecordRefused."""

    # What the database calls this connection, for `end`.
    session: tuple[Any, ...]

    def end(self, session: tuple[Any, ...]) -> None:
        """See that nothing is done any more by a connection that was lost."""

    def begin(self) -> None:
        """Begin a transaction that will write."""

    def claim(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        """Take keys; returns those (caller, key) that were free."""

    def claimed(self, key: Key) -> tuple[bytes, bytes]:
        """Who has a key that was not free: its request, and its decisions' ids."""

    def insert(self, rows: Iterable[Row]) -> Row | None:
        """Add decisions, and return the last of them."""

    def commit(self) -> None:
        """Keep what was done; once it returns, it lasts."""

    def rollback(self) -> None:
        """Forget what was done; raises nothing."""

    def insert_alone(self, rows: Iterable[Row]) -> Row | None:
        """Add decisions in a transaction of their own, and return the last of them."""

    def expect(self) -> None:
        """Begin what `insert_alone` will end, while its decisions still gather."""

    def last(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        """The newest record (id, seq, mac) of a chain among the ids from one on."""

    def close(self) -> None:
        """Close the connection; raises nothing."""
