"""The database: connections to SQLite or PostgreSQL, tables and migrations."""

from peerloan.database.engine import Database
from peerloan.database.errors import KeyInUse, LedgerError, LedgerUnavailable, RecordRefused

__all__ = [
    "Database",
    "KeyInUse",
    "LedgerError",
    "LedgerUnavailable",
    "RecordRefused",
]
