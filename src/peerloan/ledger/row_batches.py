"""Rows of decisions in batches that are bounded by bytes as well as by rows.

Releases before kept loans of up to 5 MB: thousands of rows may be gigabytes. SQLite hands over a
row when it is asked for, so its rows are measured as they come; PostgreSQL hands over as many as
are asked for, so their sizes are asked for first, which reads none of the loans.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func

MAX_ROWS = 5_000
# Of the loans as JSON. A row that is larger is a batch of its own.
MAX_BYTES = 8_000_000


def batches(
    connection: Connection, rows: Select[Any], max_rows: int = MAX_ROWS
) -> Iterator[list[Any]]:
    """The rows of a question, one of whose columns is `inputs`.

    On PostgreSQL it is asked twice: what is committed between the two only makes a batch smaller or
    larger, and in a snapshot nothing is.
    """
    columns = rows.selected_columns
    if connection.dialect.name == "sqlite":
        place = columns.keys().index("inputs")
        yield from measured(connection.execute(rows), place, max_rows)
        return
    sizes = rows.with_only_columns(func.octet_length(columns["inputs"]))
    asked = connection.execute(sizes, execution_options={"yield_per": max_rows}).scalars()
    found = connection.execute(rows, execution_options={"stream_results": True})
    for count in counts(asked, max_rows):
        yield list(found.fetchmany(count))
    while some := found.fetchmany(1):
        yield list(some)


def measured(rows: Iterable[Any], place: int, max_rows: int = MAX_ROWS) -> Iterator[list[Any]]:
    """Rows that come one by one, given the place of their inputs."""
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


def counts(sizes: Iterable[int | None], max_rows: int = MAX_ROWS) -> Iterator[int]:
    """How many rows each batch has, given the sizes of the rows' inputs in their order."""
    count = total = 0
    for each in sizes:
        size = each or 0
        if count and (count == max_rows or total + size > MAX_BYTES):
            yield count
            count = total = 0
        count += 1
        total += size
    if count:
        yield count


def first_of(sizes: Sequence[int | None], max_bytes: int) -> int:
    """How many of some rows make up at most so many bytes, at least one; given their sizes."""
    total = 0
    for count, size in enumerate(sizes):
        total += size or 0
        if count and total > max_bytes:
            return count
    return len(sizes)


def size_of(connection: Connection, inputs: ColumnElement[Any]) -> ColumnElement[int | None]:
    """How large a row's inputs are: bytes, or letters in SQLite."""
    return func.length(inputs) if connection.dialect.name == "sqlite" else func.octet_length(inputs)
