"""The scores that challengers gave, in shadow, to the loans that a champion decided on."""

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
    """A challenger's score of the loan of a decision, to be stored."""

    decision_id: bytes
    version: Version
    probability: float
    margin: float


class ChallengerScore(NamedTuple):
    """A stored score. `version` is the challenger's number in the ledger."""

    version: int
    probability: float
    # None in rows of releases that did not store it.
    stored_margin: float | None

    @property
    def margin(self) -> float | None:
        """The margin. If it was not stored, that of the rounded probability; None for 0 and 1."""
        if self.stored_margin is not None:
            return self.stored_margin
        p = self.probability
        return math.log(p / (1 - p)) if 0 < p < 1 else None


def store_challenger_scores(database: Database, made: Sequence[ScoredByChallenger]) -> None:
    """Store scores; raises LedgerUnavailable."""
    numbers = {
        version: register_version(database, version) for version in {each.version for each in made}
    }
    rows = [
        {
            "decision_id": UUID(bytes=each.decision_id),
            "version": numbers[each.version],
            "probability": each.probability,
            "margin": each.margin,
        }
        for each in made
    ]
    with database.writing() as connection:
        connection.execute(insert(challenges), rows)


def read_challenger_scores(
    connection: Connection, ids: Sequence[bytes]
) -> dict[bytes, ChallengerScore]:
    """The challenger's scores of these decisions, by decision id."""
    rows = select(challenges).where(challenges.c.decision_id.in_([UUID(bytes=i) for i in ids]))
    return {
        row.decision_id.bytes: ChallengerScore(row.version, row.probability, row.margin)
        for row in connection.execute(rows)
    }
