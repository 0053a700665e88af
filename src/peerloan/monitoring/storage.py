"""What watching keeps in the ledger: the counts of each hour, and the figures of each day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, delete, insert, select, tuple_

from peerloan.ledger.schema import counts as table
from peerloan.monitoring.counts import Counts

_encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(Counts)
# Hours that one statement names.
_NAMED = 300


class Hour(NamedTuple):
    """An hour (since 1970) of a version (its number in the ledger) and a source."""

    hour: int
    version: int
    source: str


def add_counts(connection: Connection, more: Mapping[Hour, Counts]) -> None:
    """Add to what is kept."""
    for keys in _parts(list(more)):
        named = tuple_(table.c.hour, table.c.version, table.c.source).in_(keys)
        found = {
            Hour(row.hour, row.version, row.source): _decoder.decode(row.counts)
            for row in connection.execute(select(table).where(named))
        }
        if found:
            connection.execute(delete(table).where(named))
        rows = []
        for key in keys:
            counts = found.get(key)
            if counts is None:
                counts = more[key]
            else:
                counts.add(more[key])
            rows.append(key._asdict() | {"counts": _encode(counts).decode()})
        connection.execute(insert(table), rows)


def read_counts(
    connection: Connection, first_hour: int, last_hour: int, sources: Iterable[str] | None = None
) -> Iterator[tuple[Hour, Counts]]:
    """The counts of the hours from the first one to before the last."""
    rows = select(table).where(table.c.hour >= first_hour, table.c.hour < last_hour)
    if sources is not None:
        rows = rows.where(table.c.source.in_(list(sources)))
    for row in connection.execute(rows.execution_options(yield_per=1_000)):
        yield Hour(row.hour, row.version, row.source), _decoder.decode(row.counts)


def _parts(every: list[Hour]) -> Iterator[list[Hour]]:
    for i in range(0, len(every), _NAMED):
        yield every[i : i + _NAMED]
