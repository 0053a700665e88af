"""Compares the decisions that clients received under load with those stored in the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from deploy.deployment import Deployment
from helpers.steady_load import Tally


@dataclass
class LedgerCheck:
    """Counts decisions that were requested, answered and stored since this object was created."""

    since_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    sent: int = 0
    answered_ids: list[str] = field(default_factory=list, repr=False)
    stored_ids: list[str] = field(default_factory=list, repr=False)

    def add(self, tally: Tally) -> None:
        """Add what clients saw."""
        self.sent += tally.loans
        self.answered_ids += tally.ids

    def read_ledger(self, deployment: Deployment) -> None:
        """Read the stored decisions. Stop the load first."""
        self.stored_ids = deployment.sql(
            f"SELECT id FROM decisions WHERE time_ms >= {self.since_ms}"
        )

    @property
    def answered(self) -> int:
        """Number of different decisions that clients received."""
        return len(set(self.answered_ids))

    @property
    def lost(self) -> int:
        """Number of received decisions that the ledger does not have."""
        return len(set(self.answered_ids).difference(self.stored_ids))

    @property
    def duplicated(self) -> int:
        """Number of stored decisions that no client received: one request was recorded twice."""
        return len(self.stored_ids) - (self.answered - self.lost)

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"decisions: {self.sent:,} sent, {self.answered:,} answered, "
            f"{len(self.stored_ids):,} stored, {self.lost} lost, {self.duplicated} duplicated"
        )
