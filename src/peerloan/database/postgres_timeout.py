"""Connections to PostgreSQL with a time limit for responses."""

from __future__ import annotations

from typing import Any

import psycopg


class TimeLimitedConnection(psycopg.Connection[Any]):
    """A connection that closes if a response takes longer than `limit_seconds`.

    None: no limit. Without one a client of a frozen server would wait for ever, since the socket
    stays open.
    """

    limit_seconds: float | None = None
    # The first statement of each transaction, behind a pooler that shares the session: it applies
    # the settings. None: the session is not shared.
    begin_statement: str | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for PostgreSQL's response. Raises OperationalError."""
        try:
            return super().wait(gen, interval, self.limit_seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # otherwise a late response would be taken for the next one
            raise
