"""Connections to PostgreSQL that do not wait for ever."""

from __future__ import annotations

from typing import Any

import psycopg


class Limited(psycopg.Connection[Any]):
    """A connection that waits `limit` seconds for each answer, if there is a limit, and then ends:
    a server that is frozen still keeps its end open.
    """

    limit: float | None = None
    # The statement with which each transaction begins, where a pooler shares the server's sessions
    # among its clients: there nothing stays set. None: the session is this connection's.
    beginning: str | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for what PostgreSQL sends; raises OperationalError."""
        try:
            return super().wait(gen, interval, self.limit if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # the answer may still come, and would be the next one's
            raise
