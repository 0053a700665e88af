"""Checks whether this release may write to a database's tables.

Each migration stores its number and the oldest release that may still write after it (ADMITS). So
an older release and a newer one can use a database at the same time, while every migration admits
the older one.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, inspect, select

from peerloan import __version__
from peerloan.database import tables
from peerloan.database.errors import LedgerError


class TablesState(NamedTuple):
    """The newest migration of a database (0: no migration) and the oldest release it admits."""

    migration: int = 0
    admits: str = ""


def read_state(connection: Connection, schema: str | None) -> TablesState:
    """Read the state of the tables in a schema; None: the default schema."""
    if not inspect(connection).has_table(tables.migrations.name, schema):
        return TablesState()
    rows = select(tables.migrations.c.number, tables.migrations.c.admits)
    return TablesState(*max(connection.execute(rows), default=TablesState()))


def check_state(database: object, state: TablesState) -> None:
    """Raise LedgerError unless this release may write to a database in this state."""
    if state.migration == tables.NEWEST_MIGRATION:
        return
    if state.migration == 0:
        raise LedgerError(f"{database}: contains no ledger yet; run: peerloan ledger upgrade")
    if state.migration < tables.NEWEST_MIGRATION:
        raise LedgerError(
            f"{database}: its tables are from an earlier release (expected migration "
            f"{tables.NEWEST_MIGRATION}, given {state.migration}); run: peerloan ledger upgrade"
        )
    if _parts(__version__) < _parts(state.admits):
        raise LedgerError(
            f"{database}: its tables are from a newer release (migration {state.migration}), which "
            f"needs release {state.admits} or later; this is release {__version__}, so install a "
            "newer one"
        )


def _parts(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdigit())
