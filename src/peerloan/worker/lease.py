"""The lease: the right to monitor, which one process holds at a time."""

from __future__ import annotations

import os
import secrets
import socket

from sqlalchemy import or_, select, update

from peerloan.clock import now_ms
from peerloan.database import Database
from peerloan.database.tables import watchers

# The holder renews its lease every 30 seconds; without that it expires after 2 minutes.
RENEW_SECONDS = 30.0
_LEASE_MS = 120_000


class Lease:
    """The right to monitor. A holder that does not renew it in time loses it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    def take(self) -> bool:
        """Take or renew the lease; False if another process holds it. Raises LedgerUnavailable."""
        current_ms = now_ms()
        is_free = or_(
            watchers.c.until_ms <= current_ms,
            # The holder's clock was ahead, so the lease would not expire for a long time.
            watchers.c.until_ms > current_ms + 2 * _LEASE_MS,
            watchers.c.holder == self._holder,
        )
        values = {"holder": self._holder, "until_ms": current_ms + _LEASE_MS}
        with self._database.writing() as connection:
            return bool(connection.execute(update(watchers).where(is_free).values(values)).rowcount)

    def end(self) -> None:
        """End the lease, so that another process can take it. Raises LedgerUnavailable."""
        with self._database.writing() as connection:
            is_holder = watchers.c.holder == self._holder
            connection.execute(update(watchers).where(is_holder).values(until_ms=0))

    def holder(self) -> str:
        """Return the name of the process that holds the lease. Raises LedgerUnavailable."""
        with self._database.reading() as connection:
            return str(connection.execute(select(watchers.c.holder)).scalar_one())
