"""What the ledger does not keep for ever."""

from __future__ import annotations

from sqlalchemy import delete, select

from peerloan.ledger.database import Database, now_ms
from peerloan.ledger.entries import KEY_MS
from peerloan.ledger.schema import keys

# Writers wait for each statement.
_AT_ONCE = 1_000


def forget_keys(database: Database) -> int:
    """Delete idempotency keys that are older than a day; how many."""
    before = now_ms() - KEY_MS
    forgotten = 0
    while True:
        some = select(keys.c.caller, keys.c.key).where(keys.c.time_ms < before).limit(_AT_ONCE)
        with database.writing() as connection:
            found = [(row.caller, row.key) for row in connection.execute(some)]
            for caller, key in found:
                connection.execute(delete(keys).where(keys.c.caller == caller, keys.c.key == key))
        forgotten += len(found)
        if len(found) < _AT_ONCE:
            return forgotten
