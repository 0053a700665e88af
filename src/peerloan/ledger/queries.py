"""Queries of decisions: by id, by page, or all of them as a stream."""

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
# Index ranges in the UNION of one statement: SQLite allows at most 500.
_MAX_RANGES = 100
# For a page of one caller's decisions at most this many decisions of all callers are read: there
# is no index by caller, and a caller with few decisions must not cause a scan of the ledger.
REACH = 20_000
# Most bytes of a page's loans. A page has fewer decisions if their loans are large.
MAX_PAGE_BYTES = 4_000_000
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class DecisionFilter:
    """A filter of decisions. None: no restriction.

    `since_ms` is inclusive, `until_ms` exclusive; both are in milliseconds since 1970. `caller` is
    the caller that a decision was made for.
    """

    loan_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    version: str | None = None
    band: str | None = None
    caller: str | None = None


def chunked(items: Sequence[_Item], size: int = NAMED) -> Iterator[Sequence[_Item]]:
    """Split a sequence into parts, each small enough for one statement."""
    for i in range(0, len(items), size):
        yield items[i : i + size]


def versions_by_number(connection: Connection) -> dict[int, Version]:
    """Return all model versions with decisions or challenger scores, by number."""
    rows = connection.execute(select(versions))
    return {row.number: Version(row.version, row.digest, row.threshold) for row in rows}


def find_decisions(
    database: Database, ids: Sequence[bytes], caller: str | None = None
) -> dict[bytes, StoredDecision]:
    """Return the decisions with these ids, by id. Missing and purged ones are absent.

    With `caller`, only decisions made for it. Raises LedgerUnavailable.
    """
    stored: dict[bytes, StoredDecision] = {}
    with database.reading() as connection:
        by_number = versions_by_number(connection)
        for part in chunked(ids):
            uuids = [UUID(bytes=decision_id) for decision_id in part]
            rows = _of_caller(select(*_COLUMNS).where(decisions.c.id.in_(uuids)), caller)
            for row in connection.execute(rows):
                if row.inputs is not None:
                    stored[row.id.bytes] = _stored_decision(row, by_number)
    return stored


def was_purged(database: Database, decision_id: bytes, caller: str | None = None) -> bool:
    """Return whether a decision was made and then purged. Raises LedgerUnavailable.

    A purge erases the caller too: with `caller`, the result is False.
    """
    with database.reading() as connection:
        rows = select(decisions.c.inputs.is_(None)).where(decisions.c.id == UUID(bytes=decision_id))
        return bool(connection.execute(_of_caller(rows, caller)).scalar())


def search_limit(
    database: Database, selection: DecisionFilter, before: bytes | None = None
) -> bytes | None:
    """Return the lowest id that is read for a page of one caller's decisions; None: no limit.

    Raises LedgerUnavailable.
    """
    # A loan has few decisions, and there is an index by loan.
    if selection.caller is None or selection.loan_id is not None:
        return None
    rows = _within(select(decisions.c.id), replace(selection, caller=None), before)
    last = rows.order_by(decisions.c.id.desc()).offset(REACH - 1).limit(1)
    with database.reading() as connection:
        lowest: UUID | None = connection.execute(last).scalar()
    return None if lowest is None else lowest.bytes


def decision_page(
    database: Database,
    selection: DecisionFilter,
    limit: int,
    before: bytes | None = None,
    down_to: bytes | None = None,
) -> tuple[list[StoredDecision], bool]:
    """Return at most `limit` decisions, the newest first, and whether there are more.

    Only ids below `before` and not below `down_to` count. The page has fewer decisions if their
    loans would take more than MAX_PAGE_BYTES. Raises LedgerUnavailable.
    """
    with database.reading() as connection:
        # Read one id more than the limit, to see whether there are more.
        matching = _within(select(decisions.c.id), selection, before, down_to)
        ids = _newest(connection, selection, limit + 1, matching)
        sizes = select(decisions.c.id, input_size(connection, decisions.c.inputs)).where(
            decisions.c.id.in_(ids[:limit])
        )
        sized_ids = connection.execute(sizes.order_by(decisions.c.id.desc())).all()
        count = rows_within_bytes([size for _, size in sized_ids], MAX_PAGE_BYTES)
        page_ids = [decision_id for decision_id, _ in sized_ids[:count]]
        page = select(*_COLUMNS).where(decisions.c.id.in_(page_ids))
        rows = connection.execute(page.order_by(decisions.c.id.desc())).all()
        # Read after the decisions: a version is registered before its first decision.
        by_number = versions_by_number(connection)
        return [_stored_decision(row, by_number) for row in rows], len(ids) > count


def _newest(
    connection: Connection, selection: DecisionFilter, limit: int, rows: Select[Any]
) -> Sequence[UUID]:
    """Return the ids of the newest decisions in `rows`, the newest first."""
    if selection.loan_id is not None:
        rows = _of_loan(rows, selection)
    elif selection.version is None and selection.band is None:
        rows = rows.where(decisions.c.inputs.is_not(None))
    else:
        return _newest_by_index(connection, selection, rows.order_by(decisions.c.id.desc()), limit)
    return connection.execute(rows.order_by(decisions.c.id.desc()).limit(limit)).scalars().all()


def _newest_by_index(
    connection: Connection, selection: DecisionFilter, rows: Select[tuple[UUID]], limit: int
) -> list[UUID]:
    """Return the newest ids of a version, a band or both, in `rows`, the newest first.

    Each pair of version and band is a range of the index. So take the newest ids of each range,
    and of these the newest. Ranges are queried in parts: a statement can contain only some.
    """
    numbers = connection.execute(_numbers(selection.version)).scalars().all()
    bands = range(len(BANDS)) if selection.band is None else (BANDS.index(selection.band),)
    newest: list[UUID] = []
    for part in chunked([(number, band) for number in numbers for band in bands], _MAX_RANGES):
        ranges = [
            rows.where(decisions.c.version == number, decisions.c.band == band)
            .limit(limit)
            .subquery()
            for number, band in part
        ]
        union = union_all(*(select(each.c.id) for each in ranges)).subquery()
        ids = select(union.c.id).order_by(union.c.id.desc()).limit(limit)
        newest = sorted([*newest, *connection.execute(ids).scalars()], reverse=True)[:limit]
    return newest


def _numbers(version: str | None) -> Select[tuple[int]]:
    """Select the numbers of a version, one for each of its digests; None: of all versions."""
    numbers = select(versions.c.number)
    return numbers if version is None else numbers.where(versions.c.version == version)


def stream_decisions(
    database: Database,
    since_ms: int = 0,
    until_ms: int | None = None,
    max_rows: int = MAX_ROWS,
) -> Iterator[list[StoredDecision]]:
    """Yield the decisions of a time range that were not purged, the oldest first.

    They come in lists of at most `max_rows`, or fewer if the loans are large, from one snapshot of
    the database. Raises LedgerUnavailable.
    """
    rows = (
        _within(select(*_COLUMNS), DecisionFilter(since_ms=since_ms, until_ms=until_ms), None)
        .where(decisions.c.inputs.is_not(None))
        .order_by(decisions.c.id)
    )
    with snapshot(database) as connection:
        by_number = versions_by_number(connection)
        for batch in rows_in_batches(connection, rows, max_rows):
            yield [_stored_decision(row, by_number) for row in batch]


def _of_loan(rows: Select[Any], selection: DecisionFilter) -> Select[Any]:
    rows = rows.where(decisions.c.loan_id.in_(id_spellings(selection.loan_id or "")))
    if selection.version is not None:
        rows = rows.where(decisions.c.version.in_(_numbers(selection.version)))
    if selection.band is not None:
        rows = rows.where(decisions.c.band == BANDS.index(selection.band))
    return rows


def in_time_range(
    decision_id: ColumnElement[Any], since_ms: int = 0, until_ms: int | None = None
) -> ColumnElement[bool]:
    """Select decisions made from `since_ms` on and before `until_ms` (milliseconds since 1970)."""
    since = decision_id >= uuid7.first_at(since_ms)
    return since if until_ms is None else since & (decision_id < uuid7.first_at(until_ms))


def made_for(caller: str) -> ColumnElement[bool]:
    """Select decisions that the service made for a caller.

    Decisions on books are excluded: their caller is a user of a machine, whose name may be that of
    a caller.
    """
    return (decisions.c.caller == caller) & (decisions.c.source != "book")


def _of_caller(rows: Select[Any], caller: str | None) -> Select[Any]:
    return rows if caller is None else rows.where(made_for(caller))


def _within(
    rows: Select[Any], selection: DecisionFilter, before: bytes | None, down_to: bytes | None = None
) -> Select[Any]:
    """Filter by time and by caller.

    Filters by id, which rises with time: PostgreSQL has a partition for each month.
    """
    first = uuid7.first_at(selection.since_ms or 0) if down_to is None else UUID(bytes=down_to)
    rows = _of_caller(rows.where(decisions.c.id >= first), selection.caller)
    # One upper bound only: with two, SQLite may start at the higher one and skip all ids between.
    ends = [] if before is None else [UUID(bytes=before)]
    if selection.until_ms is not None:
        ends.append(uuid7.first_at(selection.until_ms))
    return rows.where(decisions.c.id < min(ends)) if ends else rows


def _stored_decision(row: Row[Any], by_number: dict[int, Version]) -> StoredDecision:
    decision_id, number, *values = tuple(row)
    if number not in by_number:
        raise LedgerError(
            f"the model version with the number {number} is missing in the ledger; run `peerloan "
            "ledger verify` to see what else is missing"
        )
    return StoredDecision(decision_id.bytes, by_number[number], *values)
