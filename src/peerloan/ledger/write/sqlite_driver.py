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
# Rows of one INSERT, which stays prepared and releases the interpreter lock once: a service writes
# tens of rows at a time, a book thousands.
_FEW_ROWS, _MANY_ROWS = 64, 1_600
# A prepared statement for each number of rows would take 7 MB in each worker. So numbers above this
# are rounded up to a multiple of it.
_ROW_STEP = 8


class Sqlite:
    """Writes to SQLite: one INSERT for many rows, which commits by itself outside a transaction."""

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

    def claim_keys(self, claims: Sequence[Claim]) -> set[tuple[str, str]]:
        claimed: set[tuple[str, str]] = set()
        with self._errors:
            for key, time_ms, ids in claims:
                claimed.update(
                    self._connection.execute(
                        _CLAIM,
                        (key.caller, key.key, time_ms, key.request, ids),
                    )
                )
        return claimed

    def read_claim(self, key: Key) -> tuple[bytes, bytes]:
        with self._errors:
            claim: tuple[bytes, bytes] = self._connection.execute(
                "SELECT request, decisions FROM idempotency_keys WHERE caller = ? AND key = ?",
                (key.caller, key.key),
            ).fetchone()
            return claim

    def insert(self, rows: Iterable[Row]) -> Row | None:
        rows = list(rows)
        with self._errors:
            start = 0
            while part := rows[start : start + _rows_of_statement(len(rows) - start)]:
                start += len(part)
                padding = -len(part) % _ROW_STEP if len(part) > _ROW_STEP else 0
                flat = [value for row in part for value in row]
                flat += [None] * (padding * len(COLUMNS))
                self._connection.execute(_insert_statement(len(part) + padding), flat)
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
        if len(rows) <= _FEW_ROWS:
            return self.insert(rows)
        self.begin()
        last = self.insert(rows)
        self.commit()
        return last

    def begin_early(self) -> None:
        """Do nothing: an open write transaction would block all other writers."""

    def newest_record(self, chain: int, from_id: bytes) -> tuple[bytes, int, bytes] | None:
        with self._errors:
            newest: tuple[bytes, int, bytes] | None = self._connection.execute(
                "SELECT id, seq, mac FROM decisions WHERE id >= ? AND chain = ? "
                "ORDER BY id DESC LIMIT 1",
                (from_id, chain),
            ).fetchone()
            return newest

    def close(self) -> None:
        self._pooled.invalidate()


def _rows_of_statement(remaining: int) -> int:
    return _MANY_ROWS if remaining >= _MANY_ROWS else _FEW_ROWS


@cache
def _insert_statement(count: int) -> str:
    """Return an INSERT of this many rows. It skips padding, which are rows without an id."""
    row = f"({','.join('?' * len(COLUMNS))})"
    rows = f"(VALUES {','.join([row] * count)}) WHERE column{COLUMNS.index('id') + 1} IS NOT NULL"
    return f"INSERT INTO decisions ({','.join(COLUMNS)}) SELECT * FROM {rows}"  # noqa: S608


class _SqliteErrors:
    """Translates SQLite's errors to LedgerUnavailable or RecordRefused."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
            raise RecordRefused(first_line(error)) from error
        if isinstance(error, sqlite3.Error):
            raise LedgerUnavailable(f"{self._file}: {first_line(error)}") from error
