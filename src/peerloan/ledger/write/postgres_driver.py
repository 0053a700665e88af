"""The writer's driver for PostgreSQL."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, LiteralString, NamedTuple, cast
from uuid import UUID

import psycopg
from psycopg import sql

from peerloan.database.engine import Database
from peerloan.database.errors import KeyInUse, LedgerUnavailable, RecordRefused, first_line
from peerloan.database.postgres_timeout import TimeLimitedConnection
from peerloan.ledger.records import COLUMNS
from peerloan.ledger.write.driver import Row
from peerloan.ledger.write.idempotency import CLAIM, KEY_COLUMNS, Claim, Key

_CLAIM = (
    f"INSERT INTO idempotency_keys ({KEY_COLUMNS}) SELECT * FROM "  # noqa: S608
    f"unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::bytea[]) {CLAIM}"
)
# An advisory lock identifies a session, or a transaction in a shared session.
_LOCK = "SELECT pg_advisory_lock(%s, %s)"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s, %s)"
# How long to wait for the end of a lost connection, and how often to check for it.
_TERMINATE_SECONDS, _CHECK_SECONDS = 2.0, 0.05
_TERMINATE = (
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_locks WHERE locktype = 'advisory' "
    "AND (classid, objid, objsubid) = (%s::int::oid, %s::int::oid, 2) AND granted "
    "AND pid <> pg_backend_pid()"
)
_NEWEST_RECORD = (
    "SELECT current_setting('transaction_read_only')::bool, id, seq, mac "
    "FROM (VALUES (1)) AS always LEFT JOIN (SELECT id, seq, mac FROM decisions "
    "WHERE id >= %s AND chain = %s ORDER BY id DESC LIMIT 1) AS newest ON true"
)
_COPY = f"COPY decisions ({','.join(COLUMNS)}) FROM STDIN (FORMAT binary)".encode()
# The columns' binary types. PostgreSQL's uuid has the same 16 bytes as an id.
_TYPES = (
    *("bytea", "int8", "int4", "int8", "int4"),
    *("text", "text", "text", "text", "text", "text"),
    *("float8", "float8", "bool", "int2", "text", "text", "bytea", "bytea", "bytea"),
)
# A COPY in progress, and the stack whose closing ends it.
_OpenCopy = tuple[psycopg.Copy, contextlib.ExitStack]


class _Session(NamedTuple):
    """Identifies a connection to PostgreSQL.

    `first` and `second` are the numbers of an advisory lock that only this connection takes.
    `shared`: a pooler shares the server's session with other clients.
    """

    first: int
    second: int
    shared: bool


def connect(database: Database) -> Postgres:
    """Open a connection for a writer. Raises LedgerUnavailable."""
    with _postgres_errors():
        # Open a new connection: pooled ones may lead to the server that was lost.
        database.renew()
        pooled = database.engine.raw_connection()
        driver: Any = pooled.driver_connection
        # Detach it for good, so that the pool never hands it out in this state.
        pooled.detach()
        return Postgres(driver) if driver.begin_statement is None else PooledPostgres(driver)


class Postgres:
    """Writes to PostgreSQL by COPY, which is a transaction by itself if nothing else is written."""

    def __init__(self, connection: TimeLimitedConnection) -> None:
        self._connection = connection
        connection.autocommit = True
        # No time limit: the writer has its own, and a slow statement may still succeed.
        connection.limit_seconds = None
        lock = secrets.randbits(31), secrets.randbits(31)
        self.session: tuple[Any, ...] = _Session(
            *lock, shared=connection.begin_statement is not None
        )
        self._open_copy: _OpenCopy | None = None
        self._take_lock(lock)

    def _take_lock(self, lock: tuple[int, int]) -> None:
        """Take the lock that identifies this connection on the server."""
        self._connection.execute(_LOCK, lock)

    def terminate(self, session: tuple[Any, ...]) -> None:
        # The server may still commit until it notices that the client is gone. So end its session;
        # but a shared session may serve another client by now, so only wait for it.
        *lock, shared = session
        with _postgres_errors():
            if not shared and self._connection.begin_statement is None:
                self._connection.execute(_TERMINATE, lock)
            deadline = time.monotonic() + _TERMINATE_SECONDS
            while not self._is_free(lock):
                if time.monotonic() >= deadline:
                    raise LedgerUnavailable("the previous connection has not ended yet")
                time.sleep(_CHECK_SECONDS)

    def _is_free(self, lock: Sequence[int]) -> bool:
        return self._connection.execute(_TRY_LOCK, lock).fetchall() == [(True,)]

    def begin(self) -> None:
        with _postgres_errors():
            self._end_copy()
            self._connection.execute("BEGIN")

    def claim_keys(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        # Sorted, so that two writers can't deadlock.
        claims = sorted(claims)
        with _postgres_errors():
            return set(
                self._connection.execute(
                    _CLAIM,
                    (
                        [key.caller for key, _, _ in claims],
                        [key.key for key, _, _ in claims],
                        [time_ms for _, time_ms, _ in claims],
                        [key.request for key, _, _ in claims],
                        [ids for _, _, ids in claims],
                    ),
                )
            )

    def read_claim(self, key: Key) -> tuple[bytes, bytes]:
        query = "SELECT request, decisions FROM idempotency_keys WHERE caller = %s AND key = %s"
        return cast("tuple[bytes, bytes]", self._query(query, (key.caller, key.key)))

    def _query(self, query: LiteralString, values: Row) -> Row | None:
        with _postgres_errors():
            return self._connection.execute(query, values).fetchone()

    def insert(self, rows: Iterable[Row]) -> Row | None:
        self._begin_copy()
        (copy, stack), self._open_copy = cast(_OpenCopy, self._open_copy), None
        row = None
        with _postgres_errors(), stack:
            write = copy.write_row
            # The server stores the first rows while the next ones are still sealed.
            for row in rows:
                write(row)
        return row

    def begin_early(self) -> None:
        self._begin_copy()

    def _begin_copy(self) -> None:
        if self._open_copy is None:
            with _postgres_errors(), contextlib.ExitStack() as stack:
                cursor = stack.enter_context(self._connection.cursor())
                copy = stack.enter_context(cursor.copy(_COPY))
                copy.set_types(_TYPES)
                self._open_copy = copy, stack.pop_all()

    def _end_copy(self) -> None:
        """End a COPY that was begun early. It has no rows, so nothing is stored."""
        if self._open_copy is not None:
            (_, stack), self._open_copy = self._open_copy, None
            stack.close()

    def commit(self) -> None:
        with _postgres_errors():
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._end_copy()
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._connection.execute("ROLLBACK")

    insert_alone = insert

    def newest_record(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        row = self._query(_NEWEST_RECORD, (UUID(bytes=from_id), chain))
        read_only, *newest = cast(Row, row)
        if read_only:
            # A standby may lack records that were already sent to it.
            raise LedgerUnavailable("the server is read-only")
        return None if newest[0] is None else (newest[0].bytes, newest[1], newest[2])

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


class PooledPostgres(Postgres):
    """PostgreSQL through a pooler, which may give each transaction another session.

    Each transaction applies the session's settings and holds the connection's lock, so that the
    next connection can wait for its end.
    """

    def _take_lock(self, lock: tuple[int, int]) -> None:
        locking = sql.SQL("SELECT pg_advisory_xact_lock({}, {})").format(*lock)
        statements = self._connection.begin_statement, locking.as_string(self._connection)
        self._begin_statement = "; ".join(("BEGIN", *map(str, statements))).encode()

    def begin(self) -> None:
        with _postgres_errors():
            self._connection.execute(self._begin_statement)

    def begin_early(self) -> None:
        """Do nothing: an open transaction would hold a session that others may need."""

    def insert_alone(self, rows: Iterable[Row]) -> Row | None:
        self.begin()
        last = self.insert(rows)
        self.commit()
        return last

    def _query(self, query: LiteralString, values: Row) -> Row | None:
        if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return super()._query(query, values)
        self.begin()
        row = super()._query(query, values)
        self.commit()
        return row


class _postgres_errors:  # noqa: N801
    """Translates the driver's errors to LedgerUnavailable, RecordRefused or KeyInUse."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable):
            # Of the rows that a writer changes, only idempotency keys can be locked by others.
            raise KeyInUse(first_line(error)) from error
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
            raise RecordRefused(first_line(error)) from error
        if error is not None and isinstance(error, psycopg.Error):
            raise LedgerUnavailable(first_line(error)) from error
        sqlalchemy_error = getattr(error, "orig", None)
        if sqlalchemy_error is not None:
            raise LedgerUnavailable(first_line(sqlalchemy_error)) from error
