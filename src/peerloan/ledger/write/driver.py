"""The interface of the database drivers that write decisions.

Requests wait for these few statements, so they bypass SQLAlchemy, which takes longer than the
databases themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from peerloan.ledger.write.idempotency import Claim, Key

# A row of `decisions`, in the order of `records.COLUMNS`.
Row = tuple[Any, ...]


class WriterDriver(Protocol):
    """A writer's database connection: one implementation for each database.

    Transactions: `begin`, any of `claim_keys`, `read_claim` and `insert`, then `commit` or
    `rollback`; or `insert_alone` by itself. All rows of a transaction are stored or none.

    Thread safety: none. One thread at a time uses a connection; only `terminate` acts on another
    connection, by its `session`.

    Ownership: the chain that opened the connection closes it. After LedgerUnavailable call only
    `rollback` and `close`; a commit that was in progress may have succeeded.

    Errors: LedgerUnavailable if the database does not respond or can't write, RecordRefused if it
    refuses a row, KeyInUse if another transaction is claiming the same idempotency key. `rollback`
    and `close` raise nothing.
    """

    # Identifies this connection in the database, for `terminate`.
    session: tuple[Any, ...]

    def terminate(self, session: tuple[Any, ...]) -> None:
        """Make sure that a lost connection, named by its `session`, writes nothing more."""

    def begin(self) -> None:
        """Begin a write transaction."""

    def claim_keys(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        """Claim idempotency keys. Returns the (caller, key) pairs that were free or expired."""

    def read_claim(self, key: Key) -> tuple[bytes, bytes]:
        """Return the digest of the request that used a key, and the ids of its decisions."""

    def insert(self, rows: Iterable[Row]) -> Row | None:
        """Insert decisions. Returns the last row; None if there are no rows."""

    def commit(self) -> None:
        """Commit. The rows are durable once this returns."""

    def rollback(self) -> None:
        """Roll back. Raises nothing."""

    def insert_alone(self, rows: Iterable[Row]) -> Row | None:
        """Insert decisions in a separate transaction, and commit. Returns the last row."""

    def begin_early(self) -> None:
        """Begin the transaction of the next `insert_alone` in advance."""

    def newest_record(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        """Return the newest record (id, seq, mac) of a chain, among ids from `from_id` on."""

    def close(self) -> None:
        """Close the connection. Raises nothing."""
