"""The ledger's databases that are measured, each empty and with its tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from peerloan.database import Database

# The tests' own way to a PostgreSQL.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.postgres import Postgres
from helpers.programs import program

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
# As deploy/ledger/postgresql.conf has them.
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


@contextlib.contextmanager
def databases(folder: Path, postgres: str | None) -> Iterator[dict[str, str]]:
    """Their URLs: SQLite's in a folder, and a PostgreSQL's: the one that is given, or else one of
    Debian's package that is started here; without it, only SQLite's.
    """
    urls = {SQLITE: f"sqlite:///{folder}/ledger/ledger.db"}
    server = None
    if postgres:
        urls[POSTGRESQL] = postgres
    elif program("initdb"):
        server = Postgres(**_SETTINGS)
        urls[POSTGRESQL] = server.new()
    try:
        for url in urls.values():
            Database(url).upgrade()
        yield urls
    finally:
        if server is not None:
            server.remove()
