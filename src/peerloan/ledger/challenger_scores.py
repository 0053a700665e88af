"""Challengers' scores of loans on which the champion decided (shadow mode)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, insert, select

from peerloan.database.engine import Database
from peerloan.database.tables import challenges
from peerloan.ledger.records import Version
from peerloan.ledger.write.chain import register_version


class ScoredByChallenger(NamedTuple):
    """A challenger's score of a decision's loan, to be stored. `margin` is the log-odds."""

    decision_id: bytes
    version: Version
    probability: float
    margin: float


class ChallengerScore(NamedTuple):
    """A stored score. `version` is the number of the challenger's version in the ledger."""

    version: int
    probability: float
    # None in rows of earlier releases, which stored no margin.
    stored_margin: float | None

    @property
    def margin(self) -> float | None:
        """The margin (log-odds).

        If it was not stored, it is computed from the rounded probability; None for 0 and 1.
        """
        if self.stored_margin is not None:
            return self.stored_margin
        p = self.probability
        return math.log(p / (1 - p)) if 0 < p < 1 else None


def store_challenger_scores(database: Database, scores: Sequence[ScoredByChallenger]) -> None:
    """Store scores in one transaction. Raises LedgerUnavailable."""
    versions = {score.version for score in scores}
    numbers = {version: register_version(database, version) for version in versions}
    rows = [
        {
            "decision_id": UUID(bytes=score.decision_id),
            "version": numbers[score.version],
            "probability": score.probability,
            "margin": score.margin,
        }
        for score in scores
    ]
    with database.writing() as connection:
        connection.execute(insert(challenges), rows)


def read_challenger_scores(
    connection: Connection, ids: Sequence[bytes]
) -> dict[bytes, ChallengerScore]:
    """Return the stored scores of these decisions, by decision id; others are absent."""
    rows = select(challenges).where(challenges.c.decision_id.in_([UUID(bytes=i) for i in ids]))
    return {
        row.decision_id.bytes: ChallengerScore(row.version, row.probability, row.margin)
        for row in connection.execute(rows)
    }
