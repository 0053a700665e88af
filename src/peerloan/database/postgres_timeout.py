"""Connections to PostgreSQL with a time limit for responses."""

from __future__ import annotations

from typing import Any

import psycopg


class TimeLimitedConnection(psycopg.Connection[Any]):
    """A connection that closes if a response takes longer than `limit` seconds (None: no limit).

    Without it a client would wait for ever: the socket of a frozen server stays open.
    """

    limit: float | None = None
    # The statement that begins each transaction behind a pooler, where session settings are lost.
    # None: this connection has its own session.
    beginning: str | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for PostgreSQL's response. Raises OperationalError."""
        try:
            return super().wait(gen, interval, self.limit if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # otherwise a late response would be taken for the next one
            raise
