"""The few statements of the writer, by each database's own driver: they are what a decision waits
for, and SQLAlchemy's way through them costs more than the databases do.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol, cast
from uuid import UUID

import psycopg

from peerloan.ledger.database import Database, Limited
from peerloan.ledger.entries import KEY_MS, Key
from peerloan.ledger.errors import KeyInUse, LedgerUnavailable, RecordRefused, reason
from peerloan.ledger.records import COLUMNS

Row = tuple[Any, ...]
# A key, the time, and the ids that belong to it.
Claim = tuple[Key, int, bytes]
_KEY_COLUMNS = "caller, key, time_ms, request, decisions"
# A key of another day is no longer remembered.
_CLAIM = (
    "ON CONFLICT (caller, key) DO UPDATE SET time_ms = excluded.time_ms, "
    "request = excluded.request, decisions = excluded.decisions "
    f"WHERE idempotency_keys.time_ms < excluded.time_ms - {KEY_MS} RETURNING caller, key"
)
_CLAIM_ONE = f"INSERT INTO idempotency_keys ({_KEY_COLUMNS}) VALUES (?,?,?,?,?) {_CLAIM}"  # noqa: S608
_CLAIM_MANY = (
    f"INSERT INTO idempotency_keys ({_KEY_COLUMNS}) SELECT * FROM "  # noqa: S608
    f"unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::bytea[]) {_CLAIM}"
)
_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# A process's number may be another's by now. It is waited for, in milliseconds.
_END = (
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
    "WHERE pid = %s AND backend_start = %s"
)
_COPY = f"COPY decisions ({','.join(COLUMNS)}) FROM STDIN (FORMAT binary)".encode()
# What stands in them, in binary; an id's 16 bytes are what PostgreSQL's own type has.
_TYPES = (
    *("bytea", "int8", "int4", "int8", "int4"),
    *("text", "text", "text", "text", "text", "text"),
    *("float8", "float8", "bool", "int2", "text", "text", "bytea", "bytea", "bytea"),
)
# Rows of one statement: its text is kept, and it lets other threads run only once. A service has
# some tens of them to write, a book thousands.
_FEW, _MANY = 64, 1_600


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


def connect(database: Database) -> Backend:
    """A connection for a writer."""
    return Sqlite(database) if database.is_sqlite else Postgres(database)


class Sqlite:
    """SQLite: one statement for many rows, and the commit with it where nothing else is written."""

    def __init__(self, database: Database) -> None:
        with _sqlite_errors():
            self._pooled = database.engine.raw_connection()
            driver: Any = self._pooled.driver_connection
            self._connection: sqlite3.Connection = driver
        self.session = ()

    def end(self, session: tuple[Any, ...]) -> None:
        """It ended with its connection, in this process."""

    def begin(self) -> None:
        with _sqlite_errors():
            self._connection.execute("BEGIN IMMEDIATE")

    def claim(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        free: set[tuple[str, str]] = set()
        with _sqlite_errors():
            for key, time_ms, ids in claims:
                free.update(
                    self._connection.execute(
                        _CLAIM_ONE,
                        (key.caller, key.key, time_ms, key.request, ids),
                    )
                )
        return free

    def claimed(self, key: Key) -> tuple[bytes, bytes]:
        with _sqlite_errors():
            found: tuple[bytes, bytes] = self._connection.execute(
                "SELECT request, decisions FROM idempotency_keys WHERE caller = ? AND key = ?",
                (key.caller, key.key),
            ).fetchone()
            return found

    def insert(self, rows: Iterable[Row]) -> Row | None:
        rows = list(rows)
        with _sqlite_errors():
            at = 0
            while some := rows[at : at + (_MANY if len(rows) - at >= _MANY else _FEW)]:
                at += len(some)
                flat = [value for row in some for value in row]
                self._connection.execute(_insertion(len(some)), flat)
        return rows[-1] if rows else None

    def commit(self) -> None:
        with _sqlite_errors():
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def insert_alone(self, rows: Iterable[Row]) -> Row | None:
        rows = list(rows)
        if len(rows) <= _FEW:
            return self.insert(rows)
        self.begin()
        last = self.insert(rows)
        self.commit()
        return last

    def expect(self) -> None:
        """Nobody else could write then."""

    def last(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        with _sqlite_errors():
            found: tuple[bytes, int, bytes] | None = self._connection.execute(
                "SELECT id, seq, mac FROM decisions WHERE id >= ? AND chain = ? "
                "ORDER BY id DESC LIMIT 1",
                (from_id, chain),
            ).fetchone()
            return found

    def close(self) -> None:
        self._pooled.invalidate()


@lru_cache(maxsize=_FEW + 1)
def _insertion(rows: int) -> str:
    row = f"({','.join('?' * len(COLUMNS))})"
    return f"INSERT INTO decisions ({','.join(COLUMNS)}) VALUES {','.join([row] * rows)}"  # noqa: S608


class _sqlite_errors:  # noqa: N801  used as a function: a generator's would cost more
    """SQLite's errors as the ledger's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
            raise RecordRefused(reason(error)) from error
        if isinstance(error, sqlite3.Error):
            raise LedgerUnavailable(reason(error)) from error


# A COPY that was begun, and what ends it.
_Begun = tuple[psycopg.Copy, contextlib.ExitStack]


class Postgres:
    """PostgreSQL: COPY, which is a transaction by itself where nothing else is written."""

    def __init__(self, database: Database) -> None:
        with _postgres_errors():
            pooled = database.engine.raw_connection()
            driver: Any = pooled.driver_connection
            # For good: who comes after must not find it in this state, however this one ends.
            pooled.detach()
            self._connection: Limited = driver
            self._connection.autocommit = True
            # The writer looks at its clock itself: what takes longer may still be done.
            self._connection.limit = None
            self.session: tuple[Any, ...] = self._connection.execute(_SESSION).fetchone()
        self._begun: _Begun | None = None

    def end(self, session: tuple[Any, ...]) -> None:
        # It goes on with what it was told, and would commit it, until it notices that nobody
        # listens.
        with _postgres_errors():
            ended = self._connection.execute(_END, session).fetchall()
        if (False,) in ended:
            raise LedgerUnavailable("the connection before has not ended yet")

    def begin(self) -> None:
        with _postgres_errors():
            self._end_begun()
            self._connection.execute("BEGIN")

    def claim(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        # In one order everywhere: else two writers could each hold what the other wants.
        claims = sorted(claims)
        with _postgres_errors():
            return set(
                self._connection.execute(
                    _CLAIM_MANY,
                    (
                        [key.caller for key, _, _ in claims],
                        [key.key for key, _, _ in claims],
                        [time_ms for _, time_ms, _ in claims],
                        [key.request for key, _, _ in claims],
                        [ids for _, _, ids in claims],
                    ),
                )
            )

    def claimed(self, key: Key) -> tuple[bytes, bytes]:
        with _postgres_errors():
            return self._connection.execute(  # type: ignore[return-value]
                "SELECT request, decisions FROM idempotency_keys WHERE caller = %s AND key = %s",
                (key.caller, key.key),
            ).fetchone()

    def insert(self, rows: Iterable[Row]) -> Row | None:
        self.expect()
        (copy, copying), self._begun = cast(_Begun, self._begun), None
        row = None
        with _postgres_errors(), copying:
            write = copy.write_row
            # It adds the first ones while the next are still made.
            for row in rows:
                write(row)
        return row

    def expect(self) -> None:
        if self._begun is None:
            with _postgres_errors(), contextlib.ExitStack() as begun:
                cursor = begun.enter_context(self._connection.cursor())
                copy = begun.enter_context(cursor.copy(_COPY))
                copy.set_types(_TYPES)
                self._begun = copy, begun.pop_all()

    def _end_begun(self) -> None:
        if self._begun is not None:
            (_, copying), self._begun = self._begun, None
            copying.close()  # with no row, so that nothing is done

    def commit(self) -> None:
        with _postgres_errors():
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._end_begun()
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._connection.execute("ROLLBACK")

    insert_alone = insert

    def last(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        with _postgres_errors():
            found = self._connection.execute(
                "SELECT id, seq, mac FROM decisions WHERE id >= %s AND chain = %s "
                "ORDER BY id DESC LIMIT 1",
                (UUID(bytes=from_id), chain),
            ).fetchone()
            return None if found is None else (found[0].bytes, *found[1:])

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


class _postgres_errors:  # noqa: N801
    """PostgreSQL's errors as the ledger's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable):
            # Nothing but a key is ever waited for while decisions are written.
            raise KeyInUse(reason(error)) from error
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
            raise RecordRefused(reason(error)) from error
        if error is not None and isinstance(error, psycopg.Error):
            raise LedgerUnavailable(reason(error)) from error
        sqlalchemy_error = getattr(error, "orig", None)
        if sqlalchemy_error is not None:
            raise LedgerUnavailable(reason(sqlalchemy_error)) from error
