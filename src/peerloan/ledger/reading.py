"""Questions to the ledger: some decisions, a page of them, or all of them as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, false, select, union_all

from peerloan.ledger import ids
from peerloan.ledger.batches import MAX_ROWS, batches, first_of, size_of
from peerloan.ledger.database import Database
from peerloan.ledger.errors import LedgerError
from peerloan.ledger.records import Kept, Record, Version
from peerloan.ledger.schema import decisions, versions
from peerloan.ledger.snapshot import snapshot
from peerloan.loan.spelling import id_spellings
from peerloan.model import BANDS

_COLUMNS = [decisions.c[name] for name in Record._fields]
# Ids that one statement names.
NAMED = 500
# Of the loans of a page: it ends before it is full where they are large.
MAX_PAGE_BYTES = 4_000_000
_Each = TypeVar("_Each")


@dataclass(frozen=True)
class Wanted:
    """Which decisions: of a loan, from a time on and before one (milliseconds since 1970), of a
    model version, of a band. None: whichever.
    """

    loan_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    version: str | None = None
    band: str | None = None


def parts(every: Sequence[_Each], size: int = NAMED) -> Iterator[Sequence[_Each]]:
    """A sequence in parts of a size, as one statement names them."""
    for i in range(0, len(every), size):
        yield every[i : i + size]


def known_versions(connection: Connection) -> dict[int, Version]:
    """The model versions that decided, by their numbers."""
    rows = connection.execute(select(versions))
    return {row.number: Version(row.version, row.digest, row.threshold) for row in rows}


def find(database: Database, wanted: Sequence[bytes]) -> dict[bytes, Kept]:
    """The decisions with these ids, as far as they are there and were not purged."""
    found: dict[bytes, Kept] = {}
    with database.reading() as connection:
        known = known_versions(connection)
        for part in parts(wanted):
            some = [UUID(bytes=each) for each in part]
            for row in connection.execute(select(*_COLUMNS).where(decisions.c.id.in_(some))):
                if row.inputs is not None:
                    found[row.id.bytes] = _kept(row, known)
    return found


def was_purged(database: Database, wanted: bytes) -> bool:
    """Whether a decision was made, and its values erased."""
    with database.reading() as connection:
        rows = select(decisions.c.inputs.is_(None)).where(decisions.c.id == UUID(bytes=wanted))
        return bool(connection.execute(rows).scalar())


def page(
    database: Database, wanted: Wanted, limit: int, before: bytes | None = None
) -> tuple[list[Kept], bool]:
    """At most so many decisions, the newest first, of those with ids below `before`; and whether
    there are more. They are fewer where their loans hold more than MAX_PAGE_BYTES.
    """
    with database.reading() as connection:
        known = known_versions(connection)
        # One more than asked for tells whether there are more.
        named = connection.execute(_newest(wanted, known, limit + 1, before)).scalars().all()
        chosen = select(decisions.c.id, size_of(connection, decisions.c.inputs)).where(
            decisions.c.id.in_(named[:limit])
        )
        sized = connection.execute(chosen.order_by(decisions.c.id.desc())).all()
        count = first_of([size for _, size in sized], MAX_PAGE_BYTES)
        rows = select(*_COLUMNS).where(decisions.c.id.in_([made for made, _ in sized[:count]]))
        found = connection.execute(rows.order_by(decisions.c.id.desc()))
        return [_kept(row, known) for row in found], len(named) > count


def _newest(
    wanted: Wanted, known: Mapping[int, Version], limit: int, before: bytes | None
) -> Select[Any]:
    """The ids of the newest decisions."""
    numbers = [n for n, each in known.items() if wanted.version in (None, each.version)]
    if wanted.loan_id is not None:
        return _of_loan(wanted, numbers, limit, before)
    if wanted.version is None and wanted.band is None:
        rows = _within(select(decisions.c.id), wanted, before)
        rows = rows.where(decisions.c.inputs.is_not(None))
        return rows.order_by(decisions.c.id.desc()).limit(limit)
    # Each version and band has its own stretch of the index, newest last; the newest of all of
    # them are among the newest of each.
    bands = range(len(BANDS)) if wanted.band is None else (BANDS.index(wanted.band),)
    stretches = [
        _within(select(decisions.c.id), wanted, before)
        .where(decisions.c.version == number, decisions.c.band == band)
        .order_by(decisions.c.id.desc())
        .limit(limit)
        .subquery()
        for number in numbers
        for band in bands
    ]
    if not stretches:
        return select(decisions.c.id).where(false())
    every = union_all(*(select(each.c.id) for each in stretches)).subquery()
    return select(every.c.id).order_by(every.c.id.desc()).limit(limit)


def stream(
    database: Database,
    since_ms: int = 0,
    until_ms: int | None = None,
    max_rows: int = MAX_ROWS,
) -> Iterator[list[Kept]]:
    """Every decision of a time that was not purged, the oldest first, in lists of thousands; of
    fewer where their loans are large.
    """
    rows = (
        _within(select(*_COLUMNS), Wanted(since_ms=since_ms, until_ms=until_ms), None)
        .where(decisions.c.inputs.is_not(None))
        .order_by(decisions.c.id)
    )
    with snapshot(database) as connection:
        known = known_versions(connection)
        for some in batches(connection, rows, max_rows):
            yield [_kept(row, known) for row in some]


def _of_loan(
    wanted: Wanted, numbers: Sequence[int], limit: int, before: bytes | None
) -> Select[Any]:
    rows = _within(select(decisions.c.id), wanted, before).where(
        decisions.c.loan_id.in_(id_spellings(wanted.loan_id or "")),
        decisions.c.version.in_(numbers),
    )
    if wanted.band is not None:
        rows = rows.where(decisions.c.band == BANDS.index(wanted.band))
    return rows.order_by(decisions.c.id.desc()).limit(limit)


def of_time(
    made: ColumnElement[Any], since_ms: int = 0, until_ms: int | None = None
) -> ColumnElement[bool]:
    """Whether an id was made in a time: from `since_ms` on, and before `until_ms` if there is one
    (milliseconds since 1970).
    """
    since = made >= ids.first_at(since_ms)
    return since if until_ms is None else since & (made < ids.first_at(until_ms))


def _within(rows: Select[Any], wanted: Wanted, before: bytes | None) -> Select[Any]:
    """Only the ids of a time: they rise with it, and PostgreSQL keeps each month apart."""
    rows = rows.where(of_time(decisions.c.id, wanted.since_ms or 0))
    # One end: of two, SQLite might begin at the later one, and pass by all that is between them.
    ends = [] if before is None else [UUID(bytes=before)]
    if wanted.until_ms is not None:
        ends.append(ids.first_at(wanted.until_ms))
    return rows.where(decisions.c.id < min(ends)) if ends else rows


def _kept(row: Row[Any], known: dict[int, Version]) -> Kept:
    made, number, *values = tuple(row)
    if number not in known:
        gone = f"the model version with the number {number} is gone from the ledger"
        raise LedgerError(f"{gone}: `peerloan ledger verify` says what else is")
    return Kept(made.bytes, known[number], *values)
