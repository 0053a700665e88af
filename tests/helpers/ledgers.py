"""Ledgers for tests: decisions that were made at any time, and chains to keep them by."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from peerloan.database import Database
from peerloan.ledger import Chain, Entry, Record, Seal, Version

DAY_MS = 86_400_000
VERSIONS = (
    Version("2026-01-05-additive-1a2b", "a" * 64, 0.0476),
    Version("2026-04-05-additive-3c4d", "b" * 64, 0.05),
)
INPUTS = '{"loan_amnt": 12000, "int_rate": 0.2039, "purpose": "credit_card", "grade": "D"}'
# Apart, so that a test may put one between.
_ids = itertools.count(step=16)
_records = itertools.count()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id(made_ms: int) -> bytes:
    """An id of that time, above those that were made of it before."""
    return (made_ms << 80 | 7 << 76 | 2 << 62 | next(_ids)).to_bytes(16, "big")


def record(made_ms: int | None = None, **values: object) -> Record:
    """A decision of a time, by default of now."""
    number = next(_records)
    probability = (number % 997 + 1) / 1000
    made = Record(
        id=new_id(now_ms() if made_ms is None else made_ms),
        version=VERSIONS[number % 2],
        source="api",
        caller="app",
        request_id=f"request-{number}",
        idempotency_key=None,
        loan_id=f"loan-{number}",
        inputs=INPUTS,
        margin=probability - 1.5,
        probability=probability,
        late=number % 3 == 0,
        band=number % 4,
        reasons='[{"feature": "grade", "value": "D"}]',
        warnings=None,
    )
    return made._replace(**values)  # type: ignore[arg-type]


def keep(chain: Chain, records: Sequence[Record]) -> None:
    """Append decisions, each a request of its own."""
    assert chain.append([Entry([each]) for each in records]) == [None] * len(records)


class Ledger:
    """A database and its seal, where the command looks for it by default."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.database = Database(url)
        self.database.upgrade()
        self.seal_folder = folder / "peerloan-seal"
        self.seal = Seal(self.seal_folder)

    def chain(self) -> Chain:
        """A new chain."""
        return Chain(self.database, self.seal)
