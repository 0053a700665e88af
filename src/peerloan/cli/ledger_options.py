"""What commands over the ledger share. It stands apart: other commands do without its libraries."""

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
    """The ledger's database, by the settings; nothing was asked of it yet."""
    settings = read_settings()
    return Database(settings.ledger_url, settings.ledger_password_file)


@contextlib.contextmanager
def countable(database: Database) -> Iterator[Database]:
    """The ledger, or a copy for a while of a file that can't be written to: what is counted of its
    decisions is kept beside them.
    """
    if not database.is_sqlite or read_only_reason(database.file) is None:
        yield database
        return
    with tempfile.TemporaryDirectory(prefix="peerloan-") as folder:
        copy = Path(folder) / "ledger.db"
        copy_file(database.file, copy)
        yield Database(f"sqlite:///{copy}")


class Moment(click.ParamType[int]):
    """A moment, in milliseconds since 1970."""

    name = "moment"

    def convert(self, value: object, param: object, ctx: object) -> int:  # noqa: ARG002
        try:
            found = parse_moment(str(value))
        except (ValueError, OverflowError):
            found = -1
        if found < 0:
            raise click.BadParameter(f"expected {EXPECTED}, given {value!r}")
        return found
