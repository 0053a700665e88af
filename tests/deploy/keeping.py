"""What the ledger kept of what a load was answered with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from deploy.deployment import Deployment
from helpers.steady_load import Tally


@dataclass
class Kept:
    """Decisions that were asked for, answered and stored since this was made."""

    since_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    sent: int = 0
    ids: list[str] = field(default_factory=list, repr=False)
    stored: list[str] = field(default_factory=list, repr=False)

    def add(self, tally: Tally) -> None:
        """Take in what clients have seen."""
        self.sent += tally.loans
        self.ids += tally.ids

    def count(self, here: Deployment) -> None:
        """Ask the database, once nobody asks for decisions any more."""
        self.stored = here.sql(f"SELECT id FROM decisions WHERE time_ms >= {self.since_ms}")

    @property
    def answered(self) -> int:
        """Decisions that clients were told, each with an id of its own."""
        return len(set(self.ids))

    @property
    def lost(self) -> int:
        """Those of them that the ledger does not have."""
        return len(set(self.ids).difference(self.stored))

    @property
    def doubled(self) -> int:
        """What the ledger has beyond what was answered: a request that was taken for two."""
        return len(self.stored) - (self.answered - self.lost)

    def __str__(self) -> str:
        """A line for people."""
        return (
            f"decisions: {self.sent:,} sent, {self.answered:,} answered, {len(self.stored):,} "
            f"stored, {self.lost} lost, {self.doubled} doubled"
        )
