"""Active alerts, and the events of their changes.

An alert makes an event when it begins, when its level rises from "watch" to "act", and at its end.
It ends once its figure is a fifth closer to no drift than its limit (hysteresis). So a figure that
moves up and down around the limit makes one alert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from peerloan.database.tables import alarms
from peerloan.monitoring.alerts.events import BEGAN, ENDED, ROSE, store_event
from peerloan.monitoring.alerts.rules import Alert


class AlertChange(NamedTuple):
    """A change of an alert: the event's type, and the alert. An ended alert has no figures."""

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
    """Update the active alerts of a version and store events of the changes.

    `version` is its number in the ledger and its name. `firing` are the alerts that fire now.
    `persisting` are those that persist if they are active already. `window` becomes part of the
    events.
    """
    number, name = version
    of_version = alarms.c.version == number
    rows = connection.execute(select(alarms).where(of_version))
    active = {(row.rule, row.about): row for row in rows}
    changes = []
    for alert in firing:
        row = active.get((alert.rule, alert.about))
        key = {"version": number, "rule": alert.rule, "about": alert.about}
        if row is None:
            connection.execute(insert(alarms).values(level=alert.level, since_ms=now_ms, **key))
            changes.append(AlertChange(BEGAN, alert))
        elif row.level == "watch" and alert.level == "act":
            connection.execute(update(alarms).filter_by(**key).values(level=alert.level))
            changes.append(AlertChange(ROSE, alert))
    still_active = {(alert.rule, alert.about) for alert in (*persisting, *firing)}
    for (rule, about), row in active.items():
        if (rule, about) not in still_active:
            connection.execute(
                delete(alarms).where(of_version, alarms.c.rule == rule, alarms.c.about == about)
            )
            changes.append(AlertChange(ENDED, Alert(rule, row.level, about, None, None)))
    for change in changes:
        data = change.alert._asdict() | {"model": name, "window": dict(window)}
        store_event(connection, change.type, name, data, now_ms, channels)
    return changes


def active_alerts_by_version_number(connection: Connection) -> dict[int, list[Alert]]:
    """Return the active alerts by the versions' numbers in the ledger, without figures."""
    active: dict[int, list[Alert]] = {}
    for row in connection.execute(select(alarms)):
        alert = Alert(row.rule, row.level, row.about, None, None)
        active.setdefault(row.version, []).append(alert)
    return active
