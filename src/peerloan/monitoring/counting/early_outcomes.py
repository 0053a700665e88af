"""Early outcomes: reported before the outcome window, and therefore left out of figures.

The stored counts include them, because earlier releases, which may be used again, expect that. So
the counts to subtract are computed from the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection, Select, select

from peerloan import uuid7
from peerloan.clock import HOUR_MS
from peerloan.database.tables import decisions, outcomes, watchers
from peerloan.ledger.early_outcomes import early_by_version, is_early
from peerloan.ledger.queries import chunked
from peerloan.monitoring.counting.counts import Counts, Outcomes, add_outcomes
from peerloan.monitoring.counting.outcomes import changes
from peerloan.monitoring.counting.storage import Hour
from peerloan.monitoring.counting.version_cache import VersionCache


class EarlyOutcomes:
    """Finds decisions with an early outcome in a range of hours since 1970, or in all hours.

    An outcome is read only once, and the result is cached. Not thread-safe.
    """

    def __init__(self, first_hour: int = 0, last_hour: int | None = None) -> None:
        self._first, self._last = first_hour, last_hour
        self._upto = 0
        # A dict as an ordered set.
        self._found: dict[UUID, None] = {}

    def read(self, connection: Connection, versions: VersionCache) -> dict[Hour, Counts]:
        """Return the changes of the counts, by hour, that remove early outcomes.

        If a timely outcome of the same decision exists, before or after the early one, it counts
        instead.
        """
        counted = connection.execute(select(watchers.c.outcome)).scalar_one()
        first_days = _first_days(versions)
        if counted < self._upto:  # the ledger was restored from a backup
            self._upto, self._found = 0, {}
        if any(first_days.values()) and counted > self._upto:
            new = self._new(first_days, counted)
            self._found |= dict.fromkeys(row.decision_id for row in connection.execute(new))
            self._upto = counted
        found: dict[Hour, Counts] = {}
        for some in chunked(list(self._found)):
            before, now = _counted_and_timely(connection, some, first_days, counted)
            for hour, change in changes(connection, versions, before, now).items():
                if hour in found:
                    found[hour].add(change)
                else:
                    found[hour] = change
        return found

    def _new(self, first_days: Mapping[int, int], counted: int) -> Select[tuple[UUID]]:
        """Select decisions with a new early outcome, possibly several times.

        With DISTINCT, SQLite would read all outcomes in the order of their decisions.
        """
        rows = (
            select(outcomes.c.decision_id)
            .join(decisions, decisions.c.id == outcomes.c.decision_id)
            .where(outcomes.c.number > self._upto, outcomes.c.number <= counted)
            .where(early_by_version(first_days))
        )
        if self._first:
            rows = rows.where(outcomes.c.decision_id >= uuid7.first_at(self._first * HOUR_MS))
        if self._last is not None:
            rows = rows.where(outcomes.c.decision_id < uuid7.first_at(self._last * HOUR_MS))
        return rows


def subtract_outcomes(counted: Outcomes, early: Outcomes) -> None:
    """Subtract early outcomes from counted ones, by cell, but never below zero.

    The difference is negative if a version could not be loaded when its outcomes were counted.
    """
    add_outcomes(counted, early)
    for cell in early:
        known, late = (max(0, count) for count in counted[cell])
        counted[cell] = known, min(known, late)


def _counted_and_timely(
    connection: Connection, some: Sequence[UUID], first_days: Mapping[int, int], counted: int
) -> tuple[dict[bytes, bool], dict[bytes, bool]]:
    """Return, by decision, the outcome that was counted and the one that should count."""
    columns = [outcomes.c[name] for name in ("decision_id", "late", "recorded_ms")]
    rows = (
        select(*columns, decisions.c.version)
        .join(decisions, decisions.c.id == outcomes.c.decision_id)
        .where(outcomes.c.decision_id.in_(some), outcomes.c.number <= counted)
        .order_by(outcomes.c.number)
    )
    last: dict[bytes, bool] = {}
    timely: dict[bytes, bool] = {}
    for row in connection.execute(rows):
        made = row.decision_id.bytes
        last[made] = row.late
        first_day = first_days.get(row.version, 0)
        if not is_early(uuid7.milliseconds(made), row.recorded_ms, first_day):
            timely[made] = row.late
    return last, timely


def _first_days(versions: VersionCache) -> dict[int, int]:
    """Return the first day of the outcome window of each version that can be loaded."""
    opened = {number: versions.load(number) for number in versions.known}
    return {
        number: each.bundle.definition.roles.horizon[0]
        for number, each in opened.items()
        if each is not None
    }
