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
# A lock that identifies a session, or a transaction of a shared session.
_LOCK = "SELECT pg_advisory_lock(%s, %s)"
_TRY = "SELECT pg_try_advisory_xact_lock(%s, %s)"
_END_SECONDS, _LOOK_SECONDS = 2.0, 0.05
_END = (
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_locks WHERE locktype = 'advisory' "
    "AND (classid, objid, objsubid) = (%s::int::oid, %s::int::oid, 2) AND granted "
    "AND pid <> pg_backend_pid()"
)
_LAST = (
    "SELECT current_setting('transaction_read_only')::bool, id, seq, mac "
    "FROM (VALUES (1)) AS always LEFT JOIN (SELECT id, seq, mac FROM decisions "
    "WHERE id >= %s AND chain = %s ORDER BY id DESC LIMIT 1) AS newest ON true"
)
_COPY = f"COPY decisions ({','.join(COLUMNS)}) FROM STDIN (FORMAT binary)".encode()
# Their binary types. An id's 16 bytes are the same as those of PostgreSQL's uuid.
_TYPES = (
    *("bytea", "int8", "int4", "int8", "int4"),
    *("text", "text", "text", "text", "text", "text"),
    *("float8", "float8", "bool", "int2", "text", "text", "bytea", "bytea", "bytea"),
)
# A COPY in progress, and what ends it.
_Begun = tuple[psycopg.Copy, contextlib.ExitStack]


class _Session(NamedTuple):
    """The identity of a connection to PostgreSQL.

    The numbers of an advisory lock that it alone takes, and whether a pooler shares the server's
    session with other clients.
    """

    first: int
    second: int
    shared: bool


def connect(database: Database) -> Postgres:
    """Open a connection for a writer. Raises LedgerUnavailable."""
    with _postgres_errors():
        # A new one: pooled connections may lead to the server where the previous one was lost.
        database.renew()
        pooled = database.engine.raw_connection()
        driver: Any = pooled.driver_connection
        # Detached for good, so that the pool never hands it out in this state.
        pooled.detach()
        return Postgres(driver) if driver.beginning is None else PooledPostgres(driver)


class Postgres:
    """PostgreSQL by COPY, which is a transaction of its own if nothing else is written."""

    def __init__(self, connection: TimeLimitedConnection) -> None:
        self._connection = connection
        connection.autocommit = True
        # No time limit: the writer has its own, and a slow statement may still succeed.
        connection.limit = None
        lock = secrets.randbits(31), secrets.randbits(31)
        self.session: tuple[Any, ...] = _Session(*lock, shared=connection.beginning is not None)
        self._begun: _Begun | None = None
        self._sign(lock)

    def _sign(self, lock: tuple[int, int]) -> None:
        """Take the lock that identifies this connection on the server."""
        self._connection.execute(_LOCK, lock)

    def terminate(self, session: tuple[Any, ...]) -> None:
        # The server's session goes on, and would commit, until it notices that the client is gone.
        # A shared session may serve another client by now: wait for it instead of ending it.
        *lock, shared = session
        with _postgres_errors():
            if not shared and self._connection.beginning is None:
                self._connection.execute(_END, lock)
            deadline = time.monotonic() + _END_SECONDS
            while not self._is_free(lock):
                if time.monotonic() >= deadline:
                    raise LedgerUnavailable("the previous connection has not ended yet")
                time.sleep(_LOOK_SECONDS)

    def _is_free(self, lock: Sequence[int]) -> bool:
        return self._connection.execute(_TRY, lock).fetchall() == [(True,)]

    def begin(self) -> None:
        with _postgres_errors():
            self._end_begun()
            self._connection.execute("BEGIN")

    def claim(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
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

    def claimed(self, key: Key) -> tuple[bytes, bytes]:
        query = "SELECT request, decisions FROM idempotency_keys WHERE caller = %s AND key = %s"
        return cast("tuple[bytes, bytes]", self._ask(query, (key.caller, key.key)))

    def _ask(self, query: LiteralString, values: Row) -> Row | None:
        with _postgres_errors():
            return self._connection.execute(query, values).fetchone()

    def insert(self, rows: Iterable[Row]) -> Row | None:
        self._begin_copy()
        (copy, copying), self._begun = cast(_Begun, self._begun), None
        row = None
        with _postgres_errors(), copying:
            write = copy.write_row
            # The server stores the first rows while the next are still made.
            for row in rows:
                write(row)
        return row

    def begin_early(self) -> None:
        self._begin_copy()

    def _begin_copy(self) -> None:
        if self._begun is None:
            with _postgres_errors(), contextlib.ExitStack() as begun:
                cursor = begun.enter_context(self._connection.cursor())
                copy = begun.enter_context(cursor.copy(_COPY))
                copy.set_types(_TYPES)
                self._begun = copy, begun.pop_all()

    def _end_begun(self) -> None:
        if self._begun is not None:
            (_, copying), self._begun = self._begun, None
            copying.close()  # without a row, so that nothing is stored

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
        row = self._ask(_LAST, (UUID(bytes=from_id), chain))
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

    Each transaction sets what it needs and holds the connection's lock, so that the next connection
    can wait for its end.
    """

    def _sign(self, lock: tuple[int, int]) -> None:
        signed = sql.SQL("SELECT pg_advisory_xact_lock({}, {})").format(*lock)
        statements = self._connection.beginning, signed.as_string(self._connection)
        self._begin = "; ".join(("BEGIN", *map(str, statements))).encode()

    def begin(self) -> None:
        with _postgres_errors():
            self._connection.execute(self._begin)

    def begin_early(self) -> None:
        """Do nothing: an open transaction would hold a session that others may need."""

    def insert_alone(self, rows: Iterable[Row]) -> Row | None:
        self.begin()
        last = self.insert(rows)
        self.commit()
        return last

    def _ask(self, query: LiteralString, values: Row) -> Row | None:
        if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return super()._ask(query, values)
        self.begin()
        row = super()._ask(query, values)
        self.commit()
        return row


class _postgres_errors:  # noqa: N801
    """Translates PostgreSQL's errors to the ledger's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, psycopg.errors.LockNotAvailable):
            # While decisions are written, only an idempotency key can be locked.
            raise KeyInUse(first_line(error)) from error
        if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
            raise RecordRefused(first_line(error)) from error
        if error is not None and isinstance(error, psycopg.Error):
            raise LedgerUnavailable(first_line(error)) from error
        sqlalchemy_error = getattr(error, "orig", None)
        if sqlalchemy_error is not None:
            raise LedgerUnavailable(first_line(sqlalchemy_error)) from error
