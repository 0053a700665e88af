"""Queries of stored monitoring data: figures of each day, active alerts, and pending events."""

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

# Most unacknowledged alerts to search for the oldest one of level act.
_MAX_EVENTS = 1_000


class StoredFigures(NamedTuple):
    """Stored figures of a window that ended on a day, or of a month that begins on it.

    They are a JSON object, as stored.
    """

    day: date
    figures: str


class ActiveAlert(NamedTuple):
    """An active alert: rule, subject, level, and since when (milliseconds since 1970)."""

    rule: str
    about: str
    level: str
    since_ms: int


class PendingEvents(NamedTuple):
    """Events without an acknowledgement or delivery.

    It holds their numbers and the times of the oldest ones (milliseconds since 1970; 0: none).
    """

    unacknowledged: int
    # Of alerts of level act.
    oldest_act_ms: int
    undelivered: int
    oldest_undelivered_ms: int


def read_figures(
    database: Database, version: str, kind: Kind, since: int, until: int
) -> tuple[list[StoredFigures], list[ActiveAlert]] | None:
    """Read the figures of a version from one day to before another (days since 1970).

    Returns them oldest first, with the version's active alerts; None if the version made no
    decision. Raises LedgerUnavailable.
    """
    with database.reading() as connection:
        own = select(versions.c.number).where(versions.c.version == version)
        if connection.execute(own).first() is None:
            return None
        rows = (
            select(figures.c.day, figures.c.figures)
            .where(
                *(figures.c.version.in_(own), figures.c.kind == kind),
                *(figures.c.day >= since, figures.c.day < until),
            )
            .order_by(figures.c.day, figures.c.version)
        )
        said = [StoredFigures(date_of(day), text) for day, text in connection.execute(rows)]
        speaking = (
            select(alarms.c.rule, alarms.c.about, alarms.c.level, alarms.c.since_ms)
            .where(alarms.c.version.in_(own))
            .order_by(alarms.c.since_ms, alarms.c.rule, alarms.c.about)
        )
        return said, [ActiveAlert(*row) for row in connection.execute(speaking)]


def figures_of_day(connection: Connection, day: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read each version's name and figures of the window that ended on a day (days since 1970)."""
    rows = select(versions.c.version, figures.c.figures).join(
        versions, versions.c.number == figures.c.version
    )
    for version, text in connection.execute(
        rows.where(figures.c.kind == "day", figures.c.day == day)
    ):
        yield version, msgspec.json.decode(text)


def active_alerts_by_name(connection: Connection) -> Iterator[tuple[str, ActiveAlert]]:
    """Read the active alerts, each with the name of its version."""
    columns = versions.c.version, alarms.c.rule, alarms.c.about, alarms.c.level, alarms.c.since_ms
    rows = select(*columns).join(versions, versions.c.number == alarms.c.version)
    for version, *alarm in connection.execute(rows):
        yield version, ActiveAlert(*alarm)


def pending_events(connection: Connection) -> PendingEvents:
    """Count the events that wait for an acknowledgement or for delivery."""
    unseen = events.c.acknowledged_ms.is_(None)
    waiting = deliveries.c.next_ms.is_not(None)
    oldest_undelivered = select(func.min(events.c.time_ms)).join(
        deliveries, deliveries.c.event == events.c.number
    )
    return PendingEvents(
        connection.execute(select(func.count()).where(unseen)).scalar_one(),
        _oldest_act_ms(connection),
        connection.execute(select(func.count()).where(waiting)).scalar_one(),
        connection.execute(oldest_undelivered.where(waiting)).scalar_one() or 0,
    )


def _oldest_act_ms(connection: Connection) -> int:
    unseen = events.c.acknowledged_ms.is_(None), events.c.type.in_((BEGAN, ROSE))
    rows = select(events.c.time_ms, events.c.event).where(*unseen)
    for time_ms, event in connection.execute(rows.order_by(events.c.number).limit(_MAX_EVENTS)):
        if msgspec.json.decode(event).get("data", {}).get("level") == "act":
            return int(time_ms)
    return 0
