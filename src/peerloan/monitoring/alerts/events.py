"""Events: stores them with their deliveries and acknowledgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, insert, select, update

from peerloan import uuid7
from peerloan.clock import now_ms
from peerloan.database import Database
from peerloan.database.errors import LedgerError
from peerloan.database.tables import deliveries, events
from peerloan.formatting import has_control
from peerloan.uuid7 import IdGenerator

BEGAN = "org.peerloan.alarm.began"
ROSE = "org.peerloan.alarm.rose"
ENDED = "org.peerloan.alarm.ended"
MADE = "org.peerloan.answer.made"
REFUSED = "org.peerloan.answer.refused"
PROMOTED = "org.peerloan.answer.promoted"
# Most characters in the reason of an acknowledgement.
MAX_WHY = 1_000
WHY_EXPECTED = f"text of 1 to {MAX_WHY:,} characters, without control characters"
_ids = IdGenerator()


class UnknownEvent(LedgerError):
    """There is no event with this id."""


class AlreadyAcknowledged(LedgerError):
    """The event is already acknowledged."""


class Acknowledgement(NamedTuple):
    """Who acknowledged an event, when (milliseconds since 1970), and why."""

    who: str
    time_ms: int
    why: str


class Event(NamedTuple):
    """An event: its ascending number, its id, its JSON, and its acknowledgement."""

    number: int
    id: str
    event: str
    acknowledged: Acknowledgement | None


def store_event(
    connection: Connection,
    kind: str,
    subject: str,
    data: Mapping[str, Any],
    time_ms: int,
    channels: Sequence[str],
) -> str:
    """Store an event and its deliveries to these channels. Returns its id.

    Runs in the transaction of the connection, so that the event is stored together with the change
    that it reports.
    """
    # Imported only here: processes that make no events don't need the SDK.
    cloudevents = import_module("peerloan.monitoring.alerts.cloudevents")
    event_id = uuid7.text(_ids.new())
    number = connection.execute(
        insert(events)
        .values(
            id=event_id,
            time_ms=time_ms,
            type=kind,
            event=cloudevents.cloud_event(event_id, kind, subject, time_ms, data),
        )
        .returning(events.c.number)
    ).scalar_one()
    rows = [
        {"event": number, "channel": channel, "attempts": 0, "next_ms": 0} for channel in channels
    ]
    if rows:
        connection.execute(insert(deliveries), rows)
    return event_id


def event_page(
    database: Database, limit: int, before: int | None = None, only_open: bool = False
) -> list[Event]:
    """Return at most `limit` events with numbers below `before`, the newest first."""
    rows = select(events).order_by(events.c.number.desc()).limit(limit)
    if before is not None:
        rows = rows.where(events.c.number < before)
    if only_open:
        rows = rows.where(events.c.acknowledged_ms.is_(None))
    with database.reading() as connection:
        return [_event(row) for row in connection.execute(rows)]


def is_reason(why: object) -> bool:
    """Whether a value is a valid reason of an acknowledgement."""
    return isinstance(why, str) and 0 < len(why) <= MAX_WHY and not has_control(why)


def acknowledge(database: Database, event_id: str, who: str, why: str) -> Event:
    """Acknowledge an event.

    Raises UnknownEvent, or AlreadyAcknowledged: an acknowledgement is never replaced.
    """
    try:
        # Databases fail on some texts, for example with a NUL, so only a UUID is looked up.
        event_id = str(UUID(event_id))
    except ValueError:
        raise UnknownEvent(f"{event_id}: no such event") from None
    with database.writing() as connection:
        has_id = events.c.id == event_id
        changed = connection.execute(
            update(events)
            .where(has_id, events.c.acknowledged_ms.is_(None))
            .values(acknowledged_ms=now_ms(), acknowledged_by=who, why=why)
        )
        row = connection.execute(select(events).where(has_id)).first()
    if row is None:
        raise UnknownEvent(f"{event_id}: no such event")
    event = _event(row)
    if not changed.rowcount and event.acknowledged is not None:
        # Callers have no name if the service runs without tokens.
        first = event.acknowledged.who or "somebody"
        raise AlreadyAcknowledged(f"{event_id}: is already acknowledged, by {first}")
    return event


def _event(row: Row[Any]) -> Event:
    acknowledged = None
    if row.acknowledged_ms is not None:
        acknowledged = Acknowledgement(row.acknowledged_by, row.acknowledged_ms, row.why)
    return Event(row.number, row.id, row.event, acknowledged)
