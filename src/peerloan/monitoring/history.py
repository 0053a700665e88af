"""What was said of a model's drift before: figures that the monitor keeps, read as they stand."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from sqlalchemy import select

from peerloan.ledger import Database
from peerloan.ledger.reports import day_of
from peerloan.ledger.schema import figures, versions

# Figures of a version that are read at once.
MOST = 366


class Said(NamedTuple):
    """What was said of a version's window that ended on a day, or of the month that began on it;
    `figures` is a JSON object.
    """

    version: str
    day: date
    figures: str


def read_figures(
    database: Database, version: str, kind: str, since_day: int, until_day: int
) -> list[Said]:
    """A version's figures of a kind, "day" or "month", the oldest first, from one day on and before
    another (days since 1970); of more than MOST the newest.
    """
    with database.reading() as connection:
        named = select(versions.c.number).where(versions.c.version == version)
        # A version that was published anew, with another digest, has another number.
        numbers = list(connection.execute(named).scalars())
        rows = (
            select(figures.c.day, figures.c.figures)
            .where(figures.c.version.in_(numbers), figures.c.kind == kind)
            .where(figures.c.day >= since_day, figures.c.day < until_day)
            .order_by(figures.c.day.desc(), figures.c.version.desc())
            .limit(MOST * len(numbers))
        )
        found = [Said(version, day_of(row.day), row.figures) for row in connection.execute(rows)]
    return found[::-1]
