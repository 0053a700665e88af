"""The interface of the writer's database drivers.

Decisions wait for these few statements, so they bypass SQLAlchemy, which takes longer than the
databases do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from peerloan.ledger.write.idempotency import Claim, Key

Row = tuple[Any, ...]


class WriterDriver(Protocol):
    """A writer's own database connection: one implementation for each database.

    Transactions: `begin`, any of `claim`, `claimed` and `insert`, then `commit` or `rollback`; or
    `insert_alone` by itself. All rows of a transaction are stored or none.

    Thread safety: none. One thread at a time uses a connection; only `terminate` acts on another
    one, by its `session`.

    Ownership: the chain that opened the connection closes it. After LedgerUnavailable call only
    `rollback` and `close`; a commit that was under way may have succeeded.

    Errors: LedgerUnavailable if the database does not respond or can't write, RecordRefused if it
    refuses a row. `rollback` and `close` raise nothing.
    """

    # The identity of this connection in the database, for `end`.
    session: tuple[Any, ...]

    def terminate(self, session: tuple[Any, ...]) -> None:
        """Make sure that a lost connection writes nothing more."""

    def begin(self) -> None:
        """Begin a write transaction."""

    def claim(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        """Take idempotency keys. Returns those (caller, key) that were free."""

    def claimed(self, key: Key) -> tuple[bytes, bytes]:
        """Return the request that used a key, and its decisions' ids."""

    def insert(self, rows: Iterable[Row]) -> Row | None:
        """Insert decisions. Returns the last of them."""

    def commit(self) -> None:
        """Commit; durable once it returns."""

    def rollback(self) -> None:
        """Roll back. Raises nothing."""

    def insert_alone(self, rows: Iterable[Row]) -> Row | None:
        """Insert decisions in a transaction of their own. Returns the last of them."""

    def begin_early(self) -> None:
        """Begin the transaction of the next `insert_alone` in advance."""

    def last(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        """Return the newest record (id, seq, mac) of a chain, among ids from `from_id` on."""

    def close(self) -> None:
        """Close the connection. Raises nothing."""
