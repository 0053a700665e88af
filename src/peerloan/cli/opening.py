"""What commands over the ledger share. It stands apart: other commands do without its libraries."""

from __future__ import annotations

import click

from peerloan.ledger import Database
from peerloan.ledger.moments import EXPECTED, parse_moment
from peerloan.settings import read_settings


def ledger_database() -> Database:
    """The ledger's database, by the settings; nothing was asked of it yet."""
    settings = read_settings()
    return Database(settings.ledger_url, settings.ledger_password_file)


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
