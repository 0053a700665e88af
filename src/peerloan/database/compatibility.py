"""Whether this release may write to a database's tables.

Each migration stores its number and the oldest release that may still write after it (ADMITS). An
older release can run beside newer ones while every migration admits it.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, inspect, select

from peerloan import __version__
from peerloan.database import tables
from peerloan.database.errors import LedgerError


class TablesState(NamedTuple):
    """The newest migration of a database, 0 for none, and the oldest release that it admits."""

    migration: int = 0
    admits: str = ""


def read_state(connection: Connection, schema: str | None) -> TablesState:
    """The state of the tables in a schema."""
    if not inspect(connection).has_table(tables.migrations.name, schema):
        return TablesState()
    rows = select(tables.migrations.c.number, tables.migrations.c.admits)
    return TablesState(*max(connection.execute(rows), default=TablesState()))


def check_state(database: object, state: TablesState) -> None:
    """Raise LedgerError unless this release may write to a database in this state."""
    if state.migration == tables.NUMBER:
        return
    if state.migration == 0:
        raise LedgerError(f"{database}: holds no ledger yet; run: peerloan ledger upgrade")
    if state.migration < tables.NUMBER:
        raise LedgerError(
            f"{database}: its tables are of an earlier release (migration {state.migration}, this "
            f"release needs {tables.NUMBER}); run: peerloan ledger upgrade"
        )
    if _parts(__version__) < _parts(state.admits):
        raise LedgerError(
            f"{database}: its tables are of a newer release (migration {state.migration}), which "
            f"admits releases from {state.admits} on; this one is {__version__}"
        )


def _parts(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".") if part.isdigit())
