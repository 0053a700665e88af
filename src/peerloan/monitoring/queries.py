"""What was said of a version day by day, and what speaks of it now: read, as it was kept."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from sqlalchemy import select

from peerloan.database import Database
from peerloan.database.tables import alarms, figures, versions
from peerloan.ledger.outcome_parsing import day_of
from peerloan.monitoring.counting.storage import Kind


class Said(NamedTuple):
    """What was said of a window that ended on a day, or of the month that begins on it: an object
    in JSON, as it is kept.
    """

    day: date
    figures: str


class Alarm(NamedTuple):
    """A rule that speaks now: of what, how loud, and since when (milliseconds since 1970)."""

    rule: str
    about: str
    level: str
    since_ms: int


def said_of(
    database: Database, version: str, kind: Kind, since: int, until: int
) -> tuple[list[Said], list[Alarm]] | None:
    """What was said of a version, from one day to before another (days since 1970), the oldest
    first; and what speaks of it now. None if it never decided. Raises LedgerUnavailable.
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
        said = [Said(day_of(day), text) for day, text in connection.execute(rows)]
        speaking = (
            select(alarms.c.rule, alarms.c.about, alarms.c.level, alarms.c.since_ms)
            .where(alarms.c.version.in_(own))
            .order_by(alarms.c.since_ms, alarms.c.rule, alarms.c.about)
        )
        return said, [Alarm(*row) for row in connection.execute(speaking)]
