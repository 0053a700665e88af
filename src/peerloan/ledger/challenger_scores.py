"""What challengers made of the loans that a champion decided on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, insert, select

from peerloan.database.engine import Database
from peerloan.database.tables import challenges
from peerloan.ledger.records import Version
from peerloan.ledger.write.chain import register


class Challenge(NamedTuple):
    """A decision's id, the challenger, and its probability of late payment."""

    decision_id: bytes
    version: Version
    probability: float


def keep_challenges(database: Database, made: Sequence[Challenge]) -> None:
    """Keep them; raises LedgerUnavailable."""
    numbers = {version: register(database, version) for version in {each.version for each in made}}
    rows = [
        {
            "decision_id": UUID(bytes=each.decision_id),
            "version": numbers[each.version],
            "probability": each.probability,
        }
        for each in made
    ]
    with database.writing() as connection:
        connection.execute(insert(challenges), rows)


def challenges_of(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, tuple[int, float]]:
    """Of these decisions, the challenger's version (its number in the ledger) and probability."""
    rows = select(challenges).where(challenges.c.decision_id.in_([UUID(bytes=i) for i in ids]))
    return {
        row.decision_id.bytes: (row.version, row.probability) for row in connection.execute(rows)
    }
