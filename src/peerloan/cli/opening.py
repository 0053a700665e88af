"""What commands over the ledger open. It stands apart: other commands do without its libraries."""

from __future__ import annotations

from peerloan.ledger import Database
from peerloan.settings import read_settings


def ledger_database() -> Database:
    """The ledger's database, by the settings; nothing was asked of it yet."""
    settings = read_settings()
    return Database(settings.ledger_url, settings.ledger_password_file)
