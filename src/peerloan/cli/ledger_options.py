"""Shared by the commands on the ledger. Apart from `console`, since it needs more libraries."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from peerloan.clock import EXPECTED, parse_moment
from peerloan.database import Database
from peerloan.database.sqlite_file import copy_file, read_only_reason
from peerloan.settings import read_settings


def ledger_database() -> Database:
    """Return the ledger's database, as the settings name it. Does not connect."""
    settings = read_settings()
    return Database(settings.ledger_url, settings.ledger_password_file)


@contextlib.contextmanager
def countable(database: Database) -> Iterator[Database]:
    """Yield a ledger in which decisions can be counted; counts are stored in its own tables.

    If the ledger is a read-only SQLite file, this is a temporary copy.
    """
    if not database.is_sqlite or read_only_reason(database.file) is None:
        yield database
        return
    with tempfile.TemporaryDirectory(prefix="peerloan-") as folder:
        copy = Path(folder) / "ledger.db"
        copy_file(database.file, copy)
        yield Database(f"sqlite:///{copy}")


class Moment(click.ParamType[int]):
    """Parses a moment into milliseconds since 1970."""

    name = "moment"

    def convert(self, value: object, param: object, ctx: object) -> int:  # noqa: ARG002
        try:
            time_ms = parse_moment(str(value))
        except (ValueError, OverflowError):
            time_ms = -1
        if time_ms < 0:
            raise click.BadParameter(f"expected {EXPECTED}, given {value!r}")
        return time_ms
