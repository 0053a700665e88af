"""Questions to the ledger: some decisions, a page of them, or all of them as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, select, union_all

from peerloan import uuid7
from peerloan.database.engine import Database
from peerloan.database.errors import LedgerError
from peerloan.database.snapshot import snapshot
from peerloan.database.tables import decisions, versions
from peerloan.ledger.records import Kept, Record, Version
from peerloan.ledger.row_batches import MAX_ROWS, batches, first_of, size_of
from peerloan.loan.spelling import id_spellings
from peerloan.model import BANDS

_COLUMNS = [decisions.c[name] for name in Record._fields]
# Ids that one statement names.
NAMED = 500
# Stretches of the index that one statement joins: SQLite joins 500 at most.
_STRETCHES = 100
# Decisions of all callers among which a page looks for those of one: no index names callers, and
# who made few must not have the whole ledger read.
REACH = 20_000
# Of the loans of a page: it ends before it is full where they are large.
MAX_PAGE_BYTES = 4_000_000
_Each = TypeVar("_Each")


@dataclass(frozen=True)
class Wanted:
    """Which decisions: of a loan, from a time on and before one (milliseconds since 1970), of a
    model version, of a band, made for a caller. None: whichever.
    """

    loan_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    version: str | None = None
    band: str | None = None
    caller: str | None = None


def parts(every: Sequence[_Each], size: int = NAMED) -> Iterator[Sequence[_Each]]:
    """A sequence in parts of a size, as one statement names them."""
    for i in range(0, len(every), size):
        yield every[i : i + size]


def known_versions(connection: Connection) -> dict[int, Version]:
    """The model versions that decided, by their numbers."""
    rows = connection.execute(select(versions))
    return {row.number: Version(row.version, row.digest, row.threshold) for row in rows}


def find(
    database: Database, wanted: Sequence[bytes], caller: str | None = None
) -> dict[bytes, Kept]:
    """The decisions with these ids, as far as they are there, were not purged, and are this
    caller's, if one is named.
    """
    found: dict[bytes, Kept] = {}
    with database.reading() as connection:
        known = known_versions(connection)
        for part in parts(wanted):
            some = [UUID(bytes=each) for each in part]
            rows = _of_caller(select(*_COLUMNS).where(decisions.c.id.in_(some)), caller)
            for row in connection.execute(rows):
                if row.inputs is not None:
                    found[row.id.bytes] = _kept(row, known)
    return found


def was_purged(database: Database, wanted: bytes, caller: str | None = None) -> bool:
    """Whether a decision was made, and its values erased. Whose it was is erased too: of a named
    caller's none is found.
    """
    with database.reading() as connection:
        rows = select(decisions.c.inputs.is_(None)).where(decisions.c.id == UUID(bytes=wanted))
        return bool(connection.execute(_of_caller(rows, caller)).scalar())


def reach(database: Database, wanted: Wanted, before: bytes | None = None) -> bytes | None:
    """The id down to which a page looks for the decisions of one caller; None: it looks at all."""
    # A loan has few decisions, and an index.
    if wanted.caller is None or wanted.loan_id is not None:
        return None
    rows = _within(select(decisions.c.id), replace(wanted, caller=None), before)
    last = rows.order_by(decisions.c.id.desc()).offset(REACH - 1).limit(1)
    with database.reading() as connection:
        made: UUID | None = connection.execute(last).scalar()
    return None if made is None else made.bytes


def page(
    database: Database,
    wanted: Wanted,
    limit: int,
    before: bytes | None = None,
    down_to: bytes | None = None,
) -> tuple[list[Kept], bool]:
    """At most so many decisions, the newest first, of those with ids below `before`, and not below
    `down_to`; and whether there are more. They are fewer where their loans hold more than
    MAX_PAGE_BYTES.
    """
    with database.reading() as connection:
        # One more than asked for tells whether there are more.
        rows = _within(select(decisions.c.id), wanted, before, down_to)
        named = _newest(connection, wanted, limit + 1, rows)
        chosen = select(decisions.c.id, size_of(connection, decisions.c.inputs)).where(
            decisions.c.id.in_(named[:limit])
        )
        sized = connection.execute(chosen.order_by(decisions.c.id.desc())).all()
        count = first_of([size for _, size in sized], MAX_PAGE_BYTES)
        kept = select(*_COLUMNS).where(decisions.c.id.in_([made for made, _ in sized[:count]]))
        found = connection.execute(kept.order_by(decisions.c.id.desc())).all()
        # Read last: a version is registered before its first decision.
        known = known_versions(connection)
        return [_kept(row, known) for row in found], len(named) > count


def _newest(
    connection: Connection, wanted: Wanted, limit: int, rows: Select[Any]
) -> Sequence[UUID]:
    """The ids of the newest decisions out of `rows`, the newest first."""
    if wanted.loan_id is not None:
        rows = _of_loan(rows, wanted)
    elif wanted.version is None and wanted.band is None:
        rows = rows.where(decisions.c.inputs.is_not(None))
    else:
        return _newest_by_index(connection, wanted, rows.order_by(decisions.c.id.desc()), limit)
    return connection.execute(rows.order_by(decisions.c.id.desc()).limit(limit)).scalars().all()


def _newest_by_index(
    connection: Connection, wanted: Wanted, rows: Select[tuple[UUID]], limit: int
) -> list[UUID]:
    """The newest ids of a version, a band or both, out of `rows`, the newest first.

    Each version and band has its own stretch of the index, newest last; the newest of all of them
    are among the newest of each. The stretches are asked for in parts: there are more of them with
    each version, and a statement has room for so many only.
    """
    numbers = connection.execute(_numbers(wanted.version)).scalars().all()
    bands = range(len(BANDS)) if wanted.band is None else (BANDS.index(wanted.band),)
    newest: list[UUID] = []
    for part in parts([(number, band) for number in numbers for band in bands], _STRETCHES):
        stretches = [
            rows.where(decisions.c.version == number, decisions.c.band == band)
            .limit(limit)
            .subquery()
            for number, band in part
        ]
        every = union_all(*(select(each.c.id) for each in stretches)).subquery()
        found = select(every.c.id).order_by(every.c.id.desc()).limit(limit)
        newest = sorted([*newest, *connection.execute(found).scalars()], reverse=True)[:limit]
    return newest


def _numbers(version: str | None) -> Select[tuple[int]]:
    """The numbers of a version in the ledger, or of all: one for each digest that it had."""
    numbers = select(versions.c.number)
    return numbers if version is None else numbers.where(versions.c.version == version)


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


def _of_loan(rows: Select[Any], wanted: Wanted) -> Select[Any]:
    rows = rows.where(decisions.c.loan_id.in_(id_spellings(wanted.loan_id or "")))
    if wanted.version is not None:
        rows = rows.where(decisions.c.version.in_(_numbers(wanted.version)))
    if wanted.band is not None:
        rows = rows.where(decisions.c.band == BANDS.index(wanted.band))
    return rows


def of_time(
    made: ColumnElement[Any], since_ms: int = 0, until_ms: int | None = None
) -> ColumnElement[bool]:
    """Whether an id was made in a time: from `since_ms` on, and before `until_ms` if there is one
    (milliseconds since 1970).
    """
    since = made >= uuid7.first_at(since_ms)
    return since if until_ms is None else since & (made < uuid7.first_at(until_ms))


def made_for(caller: str) -> ColumnElement[bool]:
    """Whether the service made a decision for a caller. Those on books name a user of a machine,
    who may have a caller's name.
    """
    return (decisions.c.caller == caller) & (decisions.c.source != "book")


def _of_caller(rows: Select[Any], caller: str | None) -> Select[Any]:
    return rows if caller is None else rows.where(made_for(caller))


def _within(
    rows: Select[Any], wanted: Wanted, before: bytes | None, down_to: bytes | None = None
) -> Select[Any]:
    """Only the ids of a time: they rise with it, and PostgreSQL keeps each month apart. And only
    those of a caller, if one is wanted.
    """
    first = uuid7.first_at(wanted.since_ms or 0) if down_to is None else UUID(bytes=down_to)
    rows = _of_caller(rows.where(decisions.c.id >= first), wanted.caller)
    # One end: of two, SQLite might begin at the later one, and pass by all that is between them.
    ends = [] if before is None else [UUID(bytes=before)]
    if wanted.until_ms is not None:
        ends.append(uuid7.first_at(wanted.until_ms))
    return rows.where(decisions.c.id < min(ends)) if ends else rows


def _kept(row: Row[Any], known: dict[int, Version]) -> Kept:
    made, number, *values = tuple(row)
    if number not in known:
        gone = f"the model version with the number {number} is gone from the ledger"
        raise LedgerError(f"{gone}: `peerloan ledger verify` says what else is")
    return Kept(made.bytes, known[number], *values)
