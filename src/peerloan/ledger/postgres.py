"""The writer's statements in PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, cast
from uuid import UUID

import psycopg

from peerloan.ledger.backends import CLAIM, KEY_COLUMNS, Claim, Row
from peerloan.ledger.database import Database
from peerloan.ledger.entries import Key
from peerloan.ledger.errors import KeyInUse, LedgerUnavailable, RecordRefused, reason
from peerloan.ledger.limited import Limited
from peerloan.ledger.records import COLUMNS

_CLAIM = (
    f"INSERT INTO idempotency_keys ({KEY_COLUMNS}) SELECT * FROM "  # noqa: S608
    f"unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::bytea[]) {CLAIM}"
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
