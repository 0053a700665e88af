"""The ledger as it stood at one moment, read whole beside writers that go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, column, func, select, table, text

from peerloan.database.engine import Database
from peerloan.ledger.records import COLUMNS
from peerloan.ledger.row_batches import batches


@contextlib.contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """A connection that sees one state, whatever is written meanwhile; raises LedgerUnavailable."""
    with database.reading() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        yield connection


def take_any_text(connection: Connection) -> None:
    """Have text that is none, which only another hand can have written, found: it does not fail."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        # For this use of it alone.
        connection.detach()


def raw_records(connection: Connection) -> Iterator[Any]:
    """Every record with COLUMNS, in the order of ids, which are bytes.

    They are as the driver gives them, which is what their writer handed over: nothing that stands
    between may make an edited value look right again.
    """
    record_id: ColumnElement[Any] = column("id")
    selected: tuple[ColumnElement[Any], ...] = (record_id, *map(column, COLUMNS[1:]))
    if connection.dialect.name != "sqlite":
        selected = (func.uuid_send(record_id), *selected[1:])
        # The index is in this order; sorting would write all of it to the disk once more.
        connection.execute(text("SET LOCAL enable_sort = off"))
    rows = select(*selected).select_from(table("decisions")).order_by(record_id)
    for some in batches(connection, rows):
        yield from some
