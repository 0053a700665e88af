"""Count outcomes with their decisions, in the order in which they were reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, select, update

from peerloan.clock import HOUR_MS
from peerloan.database import Database
from peerloan.database.tables import decisions, outcomes, watchers
from peerloan.ledger.challenger_scores import read_challenger_scores
from peerloan.ledger.queries import chunked
from peerloan.monitoring.counting.counts import Counts, add_outcomes
from peerloan.monitoring.counting.decisions import Progress, advance
from peerloan.monitoring.counting.storage import Hour, add_counts
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.registry import Store

# Outcomes to count and store in one transaction.
_AT_ONCE = 1_000


def count_outcomes(database: Database, store: Store, done: Progress) -> None:
    """Count the outcomes that were reported since the last run. Raises LedgerError.

    An outcome counts in the hour of its decision; a correction replaces the outcome before it.
    Outcomes of decisions with erased values are left out.
    """
    with database.reading() as connection:
        versions = VersionCache(connection, store)
        revision, upto = connection.execute(select(watchers.c.revision, watchers.c.outcome)).one()
    while True:
        with database.reading() as connection:
            new = select(outcomes.c.number, outcomes.c.decision_id)
            new = new.where(outcomes.c.number > upto).order_by(outcomes.c.number).limit(_AT_ONCE)
            told = connection.execute(new).all()
            if not told:
                break
            last = told[-1].number
            named = list(dict.fromkeys(row.decision_id.bytes for row in told))
            found = _changes(connection, versions, named, upto, last, done)
        with database.writing() as connection:
            advance(connection, revision)
            connection.execute(update(watchers).values(outcome=last))
            add_counts(connection, found)
        revision += 1
        upto = last
        done.outcomes += len(told)
    done.missing |= versions.missing


def _changes(
    connection: Connection,
    versions: VersionCache,
    named: Sequence[bytes],
    upto: int,
    last: int,
    done: Progress,
) -> dict[Hour, Counts]:
    """Return the changes of the counts from new outcomes of these decisions."""
    chosen = [UUID(bytes=each) for each in named]
    rows = (
        select(outcomes.c.number, outcomes.c.decision_id, outcomes.c.late)
        .where(outcomes.c.decision_id.in_(chosen), outcomes.c.number <= last)
        .order_by(outcomes.c.number)
    )
    before: dict[bytes, bool] = {}
    now: dict[bytes, bool] = {}
    for number, made, late in connection.execute(rows):
        (before if number <= upto else now)[made.bytes] = late
    found = changes(connection, versions, before, before | now)
    done.days |= {hour.hour // 24 for hour in found}
    return found


def changes(
    connection: Connection,
    versions: VersionCache,
    before: Mapping[bytes, bool],
    now: Mapping[bytes, bool],
) -> dict[Hour, Counts]:
    """Return the changes of the counts if outcomes `now` replace outcomes `before`.

    Decisions with erased values, and those of versions that can't be loaded, are left out.
    """
    named = list(before.keys() | now.keys())
    found: dict[Hour, Counts] = {}
    columns = [decisions.c[name] for name in ("id", "time_ms", "version", "source", "margin")]
    for some in chunked(named, _AT_ONCE):
        challenged = read_challenger_scores(connection, some)
        chosen = decisions.c.id.in_([UUID(bytes=each) for each in some])
        which = select(*columns).where(chosen, decisions.c.margin.is_not(None))
        for made, time_ms, version, source, margin in connection.execute(which):
            opened = versions.load(version)
            if opened is None:
                continue
            counting = opened.counting
            change = _change(before.get(made.bytes), now.get(made.bytes))
            hour = Hour(time_ms // HOUR_MS, version, source or "")
            counts = found.setdefault(hour, counting.empty())
            add_outcomes(counts.outcomes, {int(counting.cells(np.array(margin))): change})
            score = challenged.get(made.bytes)
            other = None if score is None else versions.load(score.version)
            if score is not None and score.margin is not None and other is not None:
                cell = int(other.counting.cells(np.array(score.margin)))
                add_outcomes(counts.challengers.setdefault(score.version, {}), {cell: change})
    return found


def _change(before: bool | None, now: bool | None) -> tuple[int, int]:
    """The change in the numbers of known and late outcomes."""
    return int(now is not None) - int(before is not None), int(now or False) - int(before or False)
