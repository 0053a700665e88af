"""The life of an alert: it makes an event when it begins, rises from "watch" to "act", and ends.

It ends once its figure is a fifth closer to no drift than its limit (hysteresis). So a figure that
moves up and down around the limit is one alert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from peerloan.database.tables import alarms
from peerloan.monitoring.alerts.events import BEGAN, ENDED, ROSE, store_event
from peerloan.monitoring.alerts.rules import Alert


class AlertChange(NamedTuple):
    """An event's type and the alert; one that ended has no figures."""

    type: str
    alert: Alert


def update_alerts(
    connection: Connection,
    version: tuple[int, str],
    firing: Sequence[Alert],
    persisting: Sequence[Alert],
    window: Mapping[str, Any],
    now_ms: int,
    channels: Sequence[str],
) -> list[AlertChange]:
    """Update the active alerts of a version (its number and name), and store events of the changes.

    `firing` are the alerts that fire now. `persisting` are those that persist if they were active
    before. `window` becomes part of the events.
    """
    number, name = version
    own = alarms.c.version == number
    before = {(row.rule, row.about): row for row in connection.execute(select(alarms).where(own))}
    changes = []
    for each in firing:
        alarm = before.get((each.rule, each.about))
        key = {"version": number, "rule": each.rule, "about": each.about}
        if alarm is None:
            connection.execute(insert(alarms).values(level=each.level, since_ms=now_ms, **key))
            changes.append(AlertChange(BEGAN, each))
        elif alarm.level == "watch" and each.level == "act":
            connection.execute(update(alarms).filter_by(**key).values(level=each.level))
            changes.append(AlertChange(ROSE, each))
    staying = {(each.rule, each.about): each for each in (*persisting, *firing)}
    for (rule, about), alarm in before.items():
        if (rule, about) not in staying:
            connection.execute(
                delete(alarms).where(own, alarms.c.rule == rule, alarms.c.about == about)
            )
            changes.append(AlertChange(ENDED, Alert(rule, alarm.level, about, None, None)))
    for change in changes:
        data = change.alert._asdict() | {"model": name, "window": dict(window)}
        store_event(connection, change.type, name, data, now_ms, channels)
    return changes


def active_alerts(connection: Connection) -> dict[int, list[Alert]]:
    """Return the active alerts by version number, without figures."""
    active: dict[int, list[Alert]] = {}
    for row in connection.execute(select(alarms)):
        alert = Alert(row.rule, row.level, row.about, None, None)
        active.setdefault(row.version, []).append(alert)
    return active
