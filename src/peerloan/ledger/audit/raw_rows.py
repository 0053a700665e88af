"""Reads rows of decisions for the audit, without SQLAlchemy's types."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, column, func, select, table, text

from peerloan.ledger.records import COLUMNS
from peerloan.ledger.row_batches import rows_in_batches


def take_any_text(connection: Connection) -> None:
    """Make SQLite return text that is not UTF-8. No writer writes it, so the audit reports it."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        # Don't return the connection to the pool: the setting would stay.
        connection.detach()


def raw_records(connection: Connection) -> Iterator[Any]:
    """Yield every row of `decisions` with COLUMNS, by ascending id. The ids are bytes.

    The values are those that the driver returns. A type of SQLAlchemy could convert an edited value
    back to a valid one. Raises LedgerUnavailable.
    """
    record_id: ColumnElement[Any] = column("id")
    selected: tuple[ColumnElement[Any], ...] = (record_id, *map(column, COLUMNS[1:]))
    if connection.dialect.name != "sqlite":
        selected = (func.uuid_send(record_id), *selected[1:])
        # The index is in this order; sorting would write all of it to the disk once more.
        connection.execute(text("SET LOCAL enable_sort = off"))
    rows = select(*selected).select_from(table("decisions")).order_by(record_id)
    for batch in rows_in_batches(connection, rows):
        yield from batch
