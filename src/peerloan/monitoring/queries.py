"""Queries of stored monitoring results: figures, active alerts, and pending events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from peerloan.clock import date_of
from peerloan.database import Database
from peerloan.database.tables import alarms, deliveries, events, figures, versions
from peerloan.monitoring.alerts.events import BEGAN, ROSE
from peerloan.monitoring.counting.storage import Kind

# Most unacknowledged events to search for the oldest alert of level act.
_MAX_EVENTS = 1_000


class StoredFigures(NamedTuple):
    """Stored figures of a window that ended on `day`, or of a month that begins on it.

    `figures` is a JSON object.
    """

    day: date
    figures: str


class ActiveAlert(NamedTuple):
    """A stored alert that is active: rule, subject, level, and start (milliseconds since 1970)."""

    rule: str
    about: str
    level: str
    since_ms: int


class PendingEvents(NamedTuple):
    """Numbers of events without an acknowledgement, and of those without delivery.

    The times of the oldest ones are in milliseconds since 1970, 0 if there is none.
    """

    unacknowledged: int
    # Only alerts of level act.
    oldest_act_ms: int
    undelivered: int
    oldest_undelivered_ms: int


def read_figures(
    database: Database, version: str, kind: Kind, since: int, until: int
) -> tuple[list[StoredFigures], list[ActiveAlert]] | None:
    """Read the figures and the active alerts of a version.

    `since` and `until` are days since 1970, `until` excluded. Figures are sorted by day. Returns
    None if the version made no decision. Raises LedgerUnavailable.
    """
    with database.reading() as connection:
        numbers = select(versions.c.number).where(versions.c.version == version)
        if connection.execute(numbers).first() is None:
            return None
        rows = (
            select(figures.c.day, figures.c.figures)
            .where(
                *(figures.c.version.in_(numbers), figures.c.kind == kind),
                *(figures.c.day >= since, figures.c.day < until),
            )
            .order_by(figures.c.day, figures.c.version)
        )
        stored = [StoredFigures(date_of(day), text) for day, text in connection.execute(rows)]
        active = (
            select(alarms.c.rule, alarms.c.about, alarms.c.level, alarms.c.since_ms)
            .where(alarms.c.version.in_(numbers))
            .order_by(alarms.c.since_ms, alarms.c.rule, alarms.c.about)
        )
        return stored, [ActiveAlert(*row) for row in connection.execute(active)]


def figures_of_day(connection: Connection, day: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (version name, figures) of the windows that ended on a day (days since 1970)."""
    rows = select(versions.c.version, figures.c.figures).join(
        versions, versions.c.number == figures.c.version
    )
    for version, text in connection.execute(
        rows.where(figures.c.kind == "day", figures.c.day == day)
    ):
        yield version, msgspec.json.decode(text)


def active_alerts_by_version_name(connection: Connection) -> Iterator[tuple[str, ActiveAlert]]:
    """Yield (version name, alert) of all active alerts."""
    columns = versions.c.version, alarms.c.rule, alarms.c.about, alarms.c.level, alarms.c.since_ms
    rows = select(*columns).join(versions, versions.c.number == alarms.c.version)
    for version, *alert in connection.execute(rows):
        yield version, ActiveAlert(*alert)


def pending_events(connection: Connection) -> PendingEvents:
    """Count the events that wait for an acknowledgement or for delivery."""
    unacknowledged = events.c.acknowledged_ms.is_(None)
    undelivered = deliveries.c.next_ms.is_not(None)
    oldest_undelivered = select(func.min(events.c.time_ms)).join(
        deliveries, deliveries.c.event == events.c.number
    )
    return PendingEvents(
        connection.execute(select(func.count()).where(unacknowledged)).scalar_one(),
        _oldest_act_ms(connection),
        connection.execute(select(func.count()).where(undelivered)).scalar_one(),
        connection.execute(oldest_undelivered.where(undelivered)).scalar_one() or 0,
    )


def _oldest_act_ms(connection: Connection) -> int:
    """Return the time of the oldest unacknowledged alert of level act; 0 if there is none."""
    rows = select(events.c.time_ms, events.c.event).where(
        events.c.acknowledged_ms.is_(None), events.c.type.in_((BEGAN, ROSE))
    )
    for time_ms, event in connection.execute(rows.order_by(events.c.number).limit(_MAX_EVENTS)):
        if msgspec.json.decode(event).get("data", {}).get("level") == "act":
            return int(time_ms)
    return 0
