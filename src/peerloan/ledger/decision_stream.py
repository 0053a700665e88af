"""Reads all decisions after an id, in batches, through the cursors of the database's driver.

A ledger may contain millions of decisions, and reading them as SQLAlchemy's rows takes several
times as long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from peerloan.clock import HOUR_MS
from peerloan.database.errors import LedgerUnavailable, first_line
from peerloan.ledger.row_batches import batch_sizes, split_measured_rows

_ROWS = "SELECT {}, time_ms / {}, {} FROM decisions WHERE id > {} ORDER BY id"
_SIZES = "SELECT octet_length(inputs) FROM decisions WHERE id > %s ORDER BY id"


@contextlib.contextmanager
def decision_batches(
    connection: Connection, after: bytes, columns: Sequence[str], max_rows: int
) -> Iterator[Iterator[Sequence[Any]]]:
    """Read the decisions with an id above `after`, by ascending id, in batches of rows.

    A row is the id, the hour in which the decision was made (hours since 1970), and `columns`,
    which must include `inputs`. A batch has at most `max_rows` rows, and is limited by bytes too
    (see `row_batches`). The iterator may be used in another thread, one thread at a time. Raises
    LedgerUnavailable.
    """
    driver: Any = connection.connection.driver_connection
    with _translate_driver_errors(connection):
        if connection.dialect.name == "sqlite":
            with contextlib.closing(driver.cursor()) as cursor:
                cursor.execute(_ROWS.format("id", HOUR_MS, ", ".join(columns), "?"), (after,))
                yield split_measured_rows(cursor, 2 + columns.index("inputs"), max_rows)
            return
        # The index is in this order; sorting would write all of it to the disk once more.
        connection.execute(text("SET LOCAL enable_sort = off"))
        with (
            driver.cursor("sizes", binary=True) as sizes,
            driver.cursor("counting", binary=True) as cursor,
        ):
            sizes.itersize = max_rows
            sizes.execute(_SIZES, (UUID(bytes=after),))
            rows = _ROWS.format("uuid_send(id)", HOUR_MS, ", ".join(columns), "%s")
            cursor.execute(rows, (UUID(bytes=after),))
            # Both cursors read the same snapshot, since they share a transaction.
            yield map(cursor.fetchmany, batch_sizes((size for (size,) in sizes), max_rows))


@contextlib.contextmanager
def _translate_driver_errors(connection: Connection) -> Iterator[None]:
    """Raise the driver's errors as LedgerUnavailable."""
    driver: Any = connection.dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        raise LedgerUnavailable(first_line(error)) from error
