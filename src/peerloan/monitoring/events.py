"""Events in the ledger: what is to be told, whom it was told, and who has taken note of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import JSON, Connection, cast, insert, select, type_coerce, update

from peerloan.ledger import Database, LedgerError, ids
from peerloan.ledger.database import now_ms
from peerloan.ledger.schema import deliveries, events

ALARM_BEGAN = "org.peerloan.alarm.began"
ALARM_ROSE = "org.peerloan.alarm.rose"
ALARM_ENDED = "org.peerloan.alarm.ended"
ANSWER_MADE = "org.peerloan.answer.made"
ANSWER_REFUSED = "org.peerloan.answer.refused"
ANSWER_PROMOTED = "org.peerloan.answer.promoted"


class UnknownEvent(LedgerError):
    """There is no event with this id."""


class AlreadyAcknowledged(LedgerError):
    """Somebody has taken note of this event before."""


@dataclass(frozen=True)
class Acknowledged:
    """When an event was taken note of (milliseconds since 1970), by whom, and why so."""

    time_ms: int
    who: str
    why: str


@dataclass(frozen=True)
class Told:
    """What became of telling an event by a channel: the tries, when the next one is due
    (milliseconds since 1970; None: none is), and what was wrong with the last one.
    """

    channel: str
    attempts: int
    next_ms: int | None
    fault: str | None

    @property
    def state(self) -> str:
        """Whether it is told, waits to be, or was given up."""
        if self.next_ms is not None:
            return "waiting"
        return "told" if self.fault is None else "given up"


@dataclass(frozen=True)
class Event:
    """An event as it is kept; `event` is the CloudEvent as JSON."""

    number: int
    id: str
    time_ms: int
    type: str
    event: str
    acknowledged: Acknowledged | None
    told: list[Told] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """Which events: from a time on (milliseconds since 1970), only those that nobody has taken note
    of, of a model version. None: whichever.
    """

    since_ms: int | None = None
    is_open: bool = False
    version: str | None = None


def put(
    connection: Connection,
    kind: str,
    subject: str,
    data: dict[str, Any],
    time_ms: int,
    channels: Sequence[str],
) -> str:
    """Keep an event that is to be told by these channels at once, in the caller's transaction.

    The subject is a model version, the time milliseconds since 1970. Returns the event's id.
    """
    # Its library is not there where only serving is installed.
    from peerloan.monitoring.cloud_event import cloud_event

    made = ids.text(ids.Ids().new())
    text = cloud_event(made, kind, subject, data, time_ms)
    row = {"id": made, "time_ms": time_ms, "type": kind, "event": text}
    number = connection.execute(insert(events).values(row).returning(events.c.number)).scalar_one()
    due = [
        {"event": number, "channel": channel, "attempts": 0, "next_ms": time_ms}
        for channel in channels
    ]
    if due:
        connection.execute(insert(deliveries), due)
    return made


def page(database: Database, wanted: Wanted, limit: int, before: int | None = None) -> list[Event]:
    """At most so many events, the newest first, of those with numbers below `before`."""
    rows = select(events).order_by(events.c.number.desc()).limit(limit)
    if before is not None:
        rows = rows.where(events.c.number < before)
    if wanted.since_ms is not None:
        rows = rows.where(events.c.time_ms >= wanted.since_ms)
    if wanted.is_open:
        rows = rows.where(events.c.acknowledged_ms.is_(None))
    if wanted.version is not None:
        # SQLite reads JSON in a text as it is; PostgreSQL wants to be told that it is some.
        as_json = type_coerce if database.is_sqlite else cast
        subject = as_json(events.c.event, JSON)["subject"].as_string()
        rows = rows.where(subject == wanted.version)
    with database.reading() as connection:
        found = {row.number: row for row in connection.execute(rows)}
        told: dict[int, list[Told]] = {number: [] for number in found}
        tries = select(deliveries).where(deliveries.c.event.in_(list(found)))
        for each in connection.execute(tries.order_by(deliveries.c.channel)):
            told[each.event].append(Told(each.channel, each.attempts, each.next_ms, each.fault))
    return [
        Event(
            *(row.number, row.id, row.time_ms, row.type, row.event),
            None
            if row.acknowledged_ms is None
            else Acknowledged(row.acknowledged_ms, row.acknowledged_by, row.why),
            told[row.number],
        )
        for row in found.values()
    ]


def acknowledge(database: Database, event_id: str, who: str, why: str) -> Acknowledged:
    """Keep who has taken note of an event, and why so; the first one holds.

    Raises UnknownEvent, AlreadyAcknowledged (which says by whom), LedgerUnavailable.
    """
    now = now_ms()
    one = events.c.id == event_id
    with database.writing() as connection:
        done = connection.execute(
            update(events)
            .where(one, events.c.acknowledged_ms.is_(None))
            .values(acknowledged_ms=now, acknowledged_by=who, why=why)
        )
        if done.rowcount:
            return Acknowledged(now, who, why)
        first = connection.execute(select(events.c.acknowledged_by).where(one)).first()
    if first is None:
        raise UnknownEvent(f"there is no event {event_id}")
    by = first.acknowledged_by or "somebody without a name"
    raise AlreadyAcknowledged(f"the event {event_id} was acknowledged before, by {by}")
