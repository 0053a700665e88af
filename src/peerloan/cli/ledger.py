"""Commands over the ledger."""

from __future__ import annotations

import click

from peerloan.cli.console import note
from peerloan.ledger import Database
from peerloan.settings import read_settings


@click.group()
def ledger() -> None:
    """Every decision that was made: the database that keeps them."""


@ledger.command()
def upgrade() -> None:
    """Make the tables, or bring them to this release's; again, it changes nothing."""
    settings = read_settings()
    database = Database(settings.ledger_url, settings.ledger_password_file)
    done = database.upgrade()
    database.check()
    applied = f"migrations applied: {', '.join(map(str, done))}" if done else "nothing to do"
    note(f"{database}: {applied}")
