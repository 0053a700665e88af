"""Count outcomes in the hours of their decisions, in the order in which they were reported."""

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
            reported = connection.execute(new).all()
            if not reported:
                break
            last = reported[-1].number
            decision_ids = list(dict.fromkeys(row.decision_id.bytes for row in reported))
            counts = _changes(connection, versions, decision_ids, upto, last, done)
        with database.writing() as connection:
            advance(connection, revision)
            connection.execute(update(watchers).values(outcome=last))
            add_counts(connection, counts)
        revision += 1
        upto = last
        done.outcomes += len(reported)
    done.missing |= versions.missing


def _changes(
    connection: Connection,
    versions: VersionCache,
    decision_ids: Sequence[bytes],
    upto: int,
    last: int,
    done: Progress,
) -> dict[Hour, Counts]:
    """Return how the outcomes with numbers above `upto`, to `last`, change the counts."""
    uuids = [UUID(bytes=decision_id) for decision_id in decision_ids]
    rows = (
        select(outcomes.c.number, outcomes.c.decision_id, outcomes.c.late)
        .where(outcomes.c.decision_id.in_(uuids), outcomes.c.number <= last)
        .order_by(outcomes.c.number)
    )
    before: dict[bytes, bool] = {}
    new: dict[bytes, bool] = {}
    for number, decision_id, late in connection.execute(rows):
        (before if number <= upto else new)[decision_id.bytes] = late
    counts = changes(connection, versions, before, before | new)
    done.days |= {hour.hour // 24 for hour in counts}
    return counts


def changes(
    connection: Connection,
    versions: VersionCache,
    before: Mapping[bytes, bool],
    now: Mapping[bytes, bool],
) -> dict[Hour, Counts]:
    """Return how the counts change if the outcomes `now` replace the outcomes `before`.

    Outcomes are by id of the decision. Decisions with erased values, and those of versions that
    can't be loaded, are left out.
    """
    decision_ids = list(before.keys() | now.keys())
    changed: dict[Hour, Counts] = {}
    columns = [decisions.c[name] for name in ("id", "time_ms", "version", "source", "margin")]
    for chunk in chunked(decision_ids, _AT_ONCE):
        challenger_scores = read_challenger_scores(connection, chunk)
        has_id = decisions.c.id.in_([UUID(bytes=decision_id) for decision_id in chunk])
        rows = select(*columns).where(has_id, decisions.c.margin.is_not(None))
        for decision_id, time_ms, version, source, margin in connection.execute(rows):
            loaded = versions.load(version)
            if loaded is None:
                continue
            counting = loaded.counting
            change = _change(before.get(decision_id.bytes), now.get(decision_id.bytes))
            hour = Hour(time_ms // HOUR_MS, version, source or "")
            counts = changed.setdefault(hour, counting.empty())
            add_outcomes(counts.outcomes, {int(counting.cells(np.array(margin))): change})
            score = challenger_scores.get(decision_id.bytes)
            challenger = None if score is None else versions.load(score.version)
            if score is not None and score.margin is not None and challenger is not None:
                cell = int(challenger.counting.cells(np.array(score.margin)))
                add_outcomes(counts.challengers.setdefault(score.version, {}), {cell: change})
    return changed


def _change(before: bool | None, now: bool | None) -> tuple[int, int]:
    """Return the change in the numbers of known and of late outcomes."""
    return int(now is not None) - int(before is not None), int(now or False) - int(before or False)
