"""Empty databases for the benchmarks, with the ledger's tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from peerloan.database import Database

# The tests' helper that starts a PostgreSQL.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.postgres import Postgres
from helpers.programs import program

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
# The same values as in deploy/ledger/postgresql.conf.
_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


@contextlib.contextmanager
def databases(folder: Path, postgres: str | None) -> Iterator[dict[str, str]]:
    """Yield the databases' URLs by name: SQLite in a folder, and PostgreSQL at the given URL.

    Without a URL a temporary PostgreSQL is started, if Debian's package is installed.
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
