"""The rows of decisions as the driver reads them, for the audit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, column, func, select, table, text

from peerloan.ledger.records import COLUMNS
from peerloan.ledger.row_batches import rows_in_batches


def take_any_text(connection: Connection) -> None:
    """Read text that is not UTF-8 too. No writer writes it; the audit must name it."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        # The pool does not get it back: the setting would stay.
        connection.detach()


def raw_records(connection: Connection) -> Iterator[Any]:
    """Every row of `decisions` with COLUMNS, by rising id. The ids are bytes.

    The values are as the driver reads them: no type of SQLAlchemy's, which could make an edited
    value look right again.
    """
    record_id: ColumnElement[Any] = column("id")
    selected: tuple[ColumnElement[Any], ...] = (record_id, *map(column, COLUMNS[1:]))
    if connection.dialect.name != "sqlite":
        selected = (func.uuid_send(record_id), *selected[1:])
        # The index is in this order; sorting would write all of it to the disk once more.
        connection.execute(text("SET LOCAL enable_sort = off"))
    rows = select(*selected).select_from(table("decisions")).order_by(record_id)
    for some in rows_in_batches(connection, rows):
        yield from some
