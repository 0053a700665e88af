"""The writer's driver for SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from peerloan.database.engine import Database
from peerloan.database.errors import LedgerUnavailable, RecordRefused, first_line
from peerloan.ledger.records import COLUMNS
from peerloan.ledger.write.driver import Row
from peerloan.ledger.write.idempotency import CLAIM, KEY_COLUMNS, Claim, Key

_CLAIM = f"INSERT INTO idempotency_keys ({KEY_COLUMNS}) VALUES (?,?,?,?,?) {CLAIM}"  # noqa: S608
# Rows of one statement, which stays prepared and releases the interpreter lock once. A service
# writes tens of rows at a time, a book thousands.
_FEW, _MANY = 64, 1_600
# A prepared statement for each number of rows would take 7 MB in each worker. So numbers above this
# are rounded up to a multiple of it.
_STEP = 8


class Sqlite:
    """SQLite by one statement for many rows, which commits itself if nothing else is written."""

    def __init__(self, database: Database) -> None:
        database.expect_writable()
        self._errors = _SqliteErrors(database.file)
        with self._errors:
            self._pooled = database.engine.raw_connection()
            driver: Any = self._pooled.driver_connection
            self._connection: sqlite3.Connection = driver
        self.session = ()

    def terminate(self, session: tuple[Any, ...]) -> None:
        """Do nothing: the transaction ended with its connection, in this process."""

    def begin(self) -> None:
        with self._errors:
            self._connection.execute("BEGIN IMMEDIATE")

    def claim(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        free: set[tuple[str, str]] = set()
        with self._errors:
            for key, time_ms, ids in claims:
                free.update(
                    self._connection.execute(
                        _CLAIM,
                        (key.caller, key.key, time_ms, key.request, ids),
                    )
                )
        return free

    def claimed(self, key: Key) -> tuple[bytes, bytes]:
        with self._errors:
            claim: tuple[bytes, bytes] = self._connection.execute(
                "SELECT request, decisions FROM idempotency_keys WHERE caller = ? AND key = ?",
                (key.caller, key.key),
            ).fetchone()
            return claim

    def insert(self, rows: Iterable[Row]) -> Row | None:
        rows = list(rows)
        with self._errors:
            at = 0
            while part := rows[at : at + (_MANY if len(rows) - at >= _MANY else _FEW)]:
                at += len(part)
                room = len(part) if len(part) <= _STEP else -(-len(part) // _STEP) * _STEP
                flat = [value for row in part for value in row]
                flat += [None] * ((room - len(part)) * len(COLUMNS))
                self._connection.execute(_insertion(room), flat)
        return rows[-1] if rows else None

    def commit(self) -> None:
        with self._errors:
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

    def begin_early(self) -> None:
        """Do nothing: an open write transaction would block all other writers."""

    def last(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        with self._errors:
            newest: tuple[bytes, int, bytes] | None = self._connection.execute(
                "SELECT id, seq, mac FROM decisions WHERE id >= ? AND chain = ? "
                "ORDER BY id DESC LIMIT 1",
                (from_id, chain),
            ).fetchone()
            return newest

    def close(self) -> None:
        self._pooled.invalidate()


@cache
def _insertion(room: int) -> str:
    """Return an INSERT with room for this many rows; rows without an id are skipped."""
    row = f"({','.join('?' * len(COLUMNS))})"
    rows = f"(VALUES {','.join([row] * room)}) WHERE column{COLUMNS.index('id') + 1} IS NOT NULL"
    return f"INSERT INTO decisions ({','.join(COLUMNS)}) SELECT * FROM {rows}"  # noqa: S608


class _SqliteErrors:
    """Translates SQLite's errors to the ledger's, with the file's name."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
            raise RecordRefused(first_line(error)) from error
        if isinstance(error, sqlite3.Error):
            raise LedgerUnavailable(f"{self._file}: {first_line(error)}") from error
