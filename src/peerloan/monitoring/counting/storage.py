"""Stored results of monitoring: counts by hour, figures by day, and progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, delete, insert, select, tuple_, update

from peerloan.database.errors import LedgerError
from peerloan.database.tables import counts as table
from peerloan.database.tables import figures, watchers
from peerloan.ledger.queries import chunked
from peerloan.monitoring.counting.counts import Counts, Outcomes

_encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(Counts)
Kind = Literal["day", "month"]
# Most hours in one statement.
_MAX_HOURS = 300


class Hour(NamedTuple):
    """The key of stored counts: hour since 1970, version's number in the ledger, and source."""

    hour: int
    version: int
    source: str


class KnownOutcomes(msgspec.Struct):
    """The number of loans in an hour, and their known outcomes."""

    loans: int
    outcomes: Outcomes = {}


_known_decoder = msgspec.json.Decoder(KnownOutcomes)


def add_counts(connection: Connection, more: Mapping[Hour, Counts]) -> None:
    """Add counts to the stored ones."""
    for keys in chunked(list(more), _MAX_HOURS):
        has_key = tuple_(table.c.hour, table.c.version, table.c.source).in_(keys)
        stored = {
            Hour(row.hour, row.version, row.source): _decoder.decode(row.counts)
            for row in connection.execute(select(table).where(has_key))
        }
        if stored:
            connection.execute(delete(table).where(has_key))
        rows = []
        for key in keys:
            counts = stored.get(key)
            if counts is None:
                counts = more[key]
            else:
                counts.add(more[key])
            rows.append(key._asdict() | {"counts": _encode(counts).decode()})
        connection.execute(insert(table), rows)


def read_counts(
    connection: Connection, first_hour: int, last_hour: int, sources: Iterable[str] | None = None
) -> Iterator[tuple[Hour, Counts]]:
    """Yield the counts of a range of hours (`last_hour` excluded), of some sources or of all."""
    rows = _hours(first_hour, last_hour)
    if sources is not None:
        rows = rows.where(table.c.source.in_(list(sources)))
    for row in connection.execute(rows):
        yield Hour(row.hour, row.version, row.source), _decoder.decode(row.counts)


def read_known_outcomes(
    connection: Connection, first_hour: int, last_hour: int
) -> Iterator[tuple[Hour, KnownOutcomes]]:
    """Yield only loans and known outcomes of a range of hours, which is faster."""
    for row in connection.execute(_hours(first_hour, last_hour)):
        yield Hour(row.hour, row.version, row.source), _known_decoder.decode(row.counts)


def _hours(first: int, last: int) -> Select[Any]:
    rows = select(table).where(table.c.hour >= first, table.c.hour < last)
    return rows.order_by(table.c.hour).execution_options(yield_per=1_000)


def store_figures(
    connection: Connection, version: int, kind: Kind, day: int, values: Mapping[str, Any]
) -> None:
    """Store the figures of a version's window; they replace earlier ones."""
    key = {"version": version, "kind": kind, "day": day}
    connection.execute(delete(figures).filter_by(**key))
    connection.execute(insert(figures).values(figures=_encode(values).decode(), **key))


def read_judged_ms(connection: Connection) -> int:
    """Read the time up to which the rules were applied (milliseconds since 1970; 0: never)."""
    return int(connection.execute(select(watchers.c.judged_ms)).scalar_one())


def advance_judged_ms(connection: Connection, moment: int) -> None:
    """Record that the rules were applied up to a time.

    Raises LedgerError if another process did so first.
    """
    advance = update(watchers).where(watchers.c.judged_ms < moment)
    if not connection.execute(advance.values(judged_ms=moment)).rowcount:
        raise LedgerError("another process has applied the rules at the same time")


def set_back_judged_ms(connection: Connection, judged_ms: int, moment: int) -> None:
    """Set `judged_ms` back to an earlier time, unless it has changed meanwhile."""
    if_unchanged = update(watchers).where(watchers.c.judged_ms == judged_ms)
    connection.execute(if_unchanged.values(judged_ms=moment))
