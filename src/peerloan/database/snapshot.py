"""Consistent snapshots of the database, unaffected by other connections that write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection

from peerloan.database.engine import Database


@contextlib.contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """Connect for reading; all reads return the same state. Raises LedgerUnavailable."""
    with database.reading() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        yield connection
