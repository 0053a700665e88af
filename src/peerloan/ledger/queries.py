"""Queries of the ledger: decisions by id, by page, or all of them as a stream."""

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
from peerloan.ledger.records import Record, StoredDecision, Version
from peerloan.ledger.row_batches import MAX_ROWS, input_size, rows_in_batches, rows_within_bytes
from peerloan.loan.spelling import id_spellings
from peerloan.model import BANDS

_COLUMNS = [decisions.c[name] for name in Record._fields]
# Ids in one statement.
NAMED = 500
# Index ranges in one statement's UNION: SQLite allows 500 at most.
_STRETCHES = 100
# A page of one caller's decisions looks through this many decisions of all callers: there is no
# index by caller, and a caller with few decisions must not cause a scan of the ledger.
REACH = 20_000
# Of the loans of a page, which holds fewer decisions if they are large.
MAX_PAGE_BYTES = 4_000_000
_Each = TypeVar("_Each")


@dataclass(frozen=True)
class DecisionFilter:
    """A filter of decisions; None: any.

    By loan, by time (from `since_ms` on and before `until_ms`, milliseconds since 1970), by model
    version, by band, and by the caller they were made for.
    """

    loan_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    version: str | None = None
    band: str | None = None
    caller: str | None = None


def chunked(items: Sequence[_Each], size: int = NAMED) -> Iterator[Sequence[_Each]]:
    """Split a sequence into parts for one statement each."""
    for i in range(0, len(items), size):
        yield items[i : i + size]


def known_versions(connection: Connection) -> dict[int, Version]:
    """Return the model versions that decided, by number."""
    rows = connection.execute(select(versions))
    return {row.number: Version(row.version, row.digest, row.threshold) for row in rows}


def find_decisions(
    database: Database, wanted: Sequence[bytes], caller: str | None = None
) -> dict[bytes, StoredDecision]:
    """Return the decisions with these ids that are there and not purged.

    With `caller`, only those made for it.
    """
    kept: dict[bytes, StoredDecision] = {}
    with database.reading() as connection:
        known = known_versions(connection)
        for part in chunked(wanted):
            ids = [UUID(bytes=decision_id) for decision_id in part]
            rows = _of_caller(select(*_COLUMNS).where(decisions.c.id.in_(ids)), caller)
            for row in connection.execute(rows):
                if row.inputs is not None:
                    kept[row.id.bytes] = _kept(row, known)
    return kept


def was_purged(database: Database, wanted: bytes, caller: str | None = None) -> bool:
    """Return whether a decision was made and then purged.

    A purge erases the caller too: with `caller`, the result is False.
    """
    with database.reading() as connection:
        rows = select(decisions.c.inputs.is_(None)).where(decisions.c.id == UUID(bytes=wanted))
        return bool(connection.execute(_of_caller(rows, caller)).scalar())


def search_limit(
    database: Database, wanted: DecisionFilter, before: bytes | None = None
) -> bytes | None:
    """Return the lowest id that a page of one caller's decisions looks at; None: no limit."""
    # A loan has few decisions, and there is an index by loan.
    if wanted.caller is None or wanted.loan_id is not None:
        return None
    rows = _within(select(decisions.c.id), replace(wanted, caller=None), before)
    last = rows.order_by(decisions.c.id.desc()).offset(REACH - 1).limit(1)
    with database.reading() as connection:
        made: UUID | None = connection.execute(last).scalar()
    return None if made is None else made.bytes


def decision_page(
    database: Database,
    wanted: DecisionFilter,
    limit: int,
    before: bytes | None = None,
    down_to: bytes | None = None,
) -> tuple[list[StoredDecision], bool]:
    """Return at most `limit` decisions, the newest first, and whether there are more.

    Only ids below `before` and not below `down_to` count. The page is shorter if its loans hold
    more than MAX_PAGE_BYTES.
    """
    with database.reading() as connection:
        # One more than asked for, to know whether there are more.
        rows = _within(select(decisions.c.id), wanted, before, down_to)
        named = _newest(connection, wanted, limit + 1, rows)
        chosen = select(decisions.c.id, input_size(connection, decisions.c.inputs)).where(
            decisions.c.id.in_(named[:limit])
        )
        sized = connection.execute(chosen.order_by(decisions.c.id.desc())).all()
        count = rows_within_bytes([size for _, size in sized], MAX_PAGE_BYTES)
        kept = select(*_COLUMNS).where(decisions.c.id.in_([made for made, _ in sized[:count]]))
        found = connection.execute(kept.order_by(decisions.c.id.desc())).all()
        # Read after the decisions: a version is registered before its first decision.
        known = known_versions(connection)
        return [_kept(row, known) for row in found], len(named) > count


def _newest(
    connection: Connection, wanted: DecisionFilter, limit: int, rows: Select[Any]
) -> Sequence[UUID]:
    """Return the ids of the newest decisions in `rows`, the newest first."""
    if wanted.loan_id is not None:
        rows = _of_loan(rows, wanted)
    elif wanted.version is None and wanted.band is None:
        rows = rows.where(decisions.c.inputs.is_not(None))
    else:
        return _newest_by_index(connection, wanted, rows.order_by(decisions.c.id.desc()), limit)
    return connection.execute(rows.order_by(decisions.c.id.desc()).limit(limit)).scalars().all()


def _newest_by_index(
    connection: Connection, wanted: DecisionFilter, rows: Select[tuple[UUID]], limit: int
) -> list[UUID]:
    """Return the newest ids of a version, a band or both, in `rows`, the newest first.

    Each version and band has its own range of the index. The newest ids of all ranges are among
    the newest of each. The ranges are queried in parts, since a statement can name only so many.
    """
    numbers = connection.execute(_numbers(wanted.version)).scalars().all()
    bands = range(len(BANDS)) if wanted.band is None else (BANDS.index(wanted.band),)
    newest: list[UUID] = []
    for part in chunked([(number, band) for number in numbers for band in bands], _STRETCHES):
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
    """Select the numbers of a version in the ledger, one for each of its digests; None: of all."""
    numbers = select(versions.c.number)
    return numbers if version is None else numbers.where(versions.c.version == version)


def stream_decisions(
    database: Database,
    since_ms: int = 0,
    until_ms: int | None = None,
    max_rows: int = MAX_ROWS,
) -> Iterator[list[StoredDecision]]:
    """Yield the decisions of a time that were not purged, the oldest first.

    They come in lists of at most `max_rows`; of fewer if the loans are large.
    """
    rows = (
        _within(select(*_COLUMNS), DecisionFilter(since_ms=since_ms, until_ms=until_ms), None)
        .where(decisions.c.inputs.is_not(None))
        .order_by(decisions.c.id)
    )
    with snapshot(database) as connection:
        known = known_versions(connection)
        for batch in rows_in_batches(connection, rows, max_rows):
            yield [_kept(row, known) for row in batch]


def _of_loan(rows: Select[Any], wanted: DecisionFilter) -> Select[Any]:
    rows = rows.where(decisions.c.loan_id.in_(id_spellings(wanted.loan_id or "")))
    if wanted.version is not None:
        rows = rows.where(decisions.c.version.in_(_numbers(wanted.version)))
    if wanted.band is not None:
        rows = rows.where(decisions.c.band == BANDS.index(wanted.band))
    return rows


def in_time_range(
    made: ColumnElement[Any], since_ms: int = 0, until_ms: int | None = None
) -> ColumnElement[bool]:
    """Select ids made from `since_ms` on and before `until_ms` (milliseconds since 1970)."""
    since = made >= uuid7.first_at(since_ms)
    return since if until_ms is None else since & (made < uuid7.first_at(until_ms))


def made_for(caller: str) -> ColumnElement[bool]:
    """Select decisions that the service made for a caller.

    Decisions on books are excluded: they name a user of a machine, who may have a caller's name.
    """
    return (decisions.c.caller == caller) & (decisions.c.source != "book")


def _of_caller(rows: Select[Any], caller: str | None) -> Select[Any]:
    return rows if caller is None else rows.where(made_for(caller))


def _within(
    rows: Select[Any], wanted: DecisionFilter, before: bytes | None, down_to: bytes | None = None
) -> Select[Any]:
    """Filter by time and by caller.

    Filters by id, which rises with time: PostgreSQL has a partition for each month.
    """
    first = uuid7.first_at(wanted.since_ms or 0) if down_to is None else UUID(bytes=down_to)
    rows = _of_caller(rows.where(decisions.c.id >= first), wanted.caller)
    # One bound only: given two, SQLite might start at the later one and skip over all in between.
    ends = [] if before is None else [UUID(bytes=before)]
    if wanted.until_ms is not None:
        ends.append(uuid7.first_at(wanted.until_ms))
    return rows.where(decisions.c.id < min(ends)) if ends else rows


def _kept(row: Row[Any], known: dict[int, Version]) -> StoredDecision:
    made, number, *values = tuple(row)
    if number not in known:
        gone = f"the model version with the number {number} is gone from the ledger"
        raise LedgerError(f"{gone}; run `peerloan ledger verify` to see what else is")
    return StoredDecision(made.bytes, known[number], *values)
