"""Batches of decision rows, limited by bytes as well as by rows.

Older releases stored loans of up to 5 MB, so thousands of rows may be gigabytes. SQLite fetches
one row at a time, so its rows are measured one by one. PostgreSQL fetches many rows at once, so a
query reads their sizes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func

MAX_ROWS = 5_000
# Of a batch's loans as JSON. A larger loan is a batch by itself.
MAX_BYTES = 8_000_000


def rows_in_batches(
    connection: Connection, rows: Select[Any], max_rows: int = MAX_ROWS
) -> Iterator[list[Any]]:
    """Yield the rows of a query in batches; one of its columns must be `inputs`.

    On PostgreSQL the query runs twice. In a snapshot both runs return the same rows. Otherwise a
    commit between them makes batches smaller or larger, and no row is lost.
    """
    columns = rows.selected_columns
    if connection.dialect.name == "sqlite":
        place = columns.keys().index("inputs")
        yield from split_measured_rows(connection.execute(rows), place, max_rows)
        return
    sizes = rows.with_only_columns(func.octet_length(columns["inputs"]))
    row_sizes = connection.execute(sizes, execution_options={"yield_per": max_rows}).scalars()
    result = connection.execute(rows, execution_options={"stream_results": True})
    for count in batch_sizes(row_sizes, max_rows):
        yield list(result.fetchmany(count))
    while rest := result.fetchmany(1):
        yield list(rest)


def split_measured_rows(
    rows: Iterable[Any], place: int, max_rows: int = MAX_ROWS
) -> Iterator[list[Any]]:
    """Group rows into batches by their measured sizes; `place` is the position of `inputs`."""
    batch: list[Any] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row[place] or "")
        if size >= MAX_BYTES or len(batch) == max_rows:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def batch_sizes(sizes: Iterable[int | None], max_rows: int = MAX_ROWS) -> Iterator[int]:
    """Yield the number of rows of each batch, from the sizes of the rows' inputs in bytes."""
    count = total = 0
    for row_size in sizes:
        size = row_size or 0
        if count and (count == max_rows or total + size > MAX_BYTES):
            yield count
            count = total = 0
        count += 1
        total += size
    if count:
        yield count


def rows_within_bytes(sizes: Sequence[int | None], max_bytes: int) -> int:
    """Count the first rows whose sizes together are at most `max_bytes`; at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size or 0
        if count and total > max_bytes:
            return count
    return len(sizes)


def input_size(connection: Connection, inputs: ColumnElement[Any]) -> ColumnElement[int | None]:
    """Return the size of a row's inputs: in bytes, or in characters in SQLite."""
    return func.length(inputs) if connection.dialect.name == "sqlite" else func.octet_length(inputs)
