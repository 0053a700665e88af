"""Ledgers for tests, and decisions of any time to append to them."""

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
# In steps, so that a test can insert an id between two others.
_ids = itertools.count(step=16)
_records = itertools.count()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id(time_ms: int) -> bytes:
    """An id of this time, greater than the earlier ids of the same time."""
    return (time_ms << 80 | 7 << 76 | 2 << 62 | next(_ids)).to_bytes(16, "big")


def record(time_ms: int | None = None, **values: object) -> Record:
    """A decision of this time, by default now, with these values."""
    number = next(_records)
    probability = (number % 997 + 1) / 1000
    decision = Record(
        id=new_id(now_ms() if time_ms is None else time_ms),
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
    return decision._replace(**values)  # type: ignore[arg-type]


def append(chain: Chain, records: Sequence[Record]) -> None:
    """Append decisions, each as its own request."""
    assert chain.append([Entry([record]) for record in records]) == [None] * len(records)


def url_of(database: Database) -> str:
    """The URL of a database, with its password."""
    return database.url.render_as_string(hide_password=False)


class Ledger:
    """An upgraded database, and its seal in the default folder of the command line."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.database = Database(url)
        self.database.upgrade()
        self.seal_folder = folder / "peerloan-seal"
        self.seal = Seal(self.seal_folder)

    def chain(self) -> Chain:
        """Begin a new chain."""
        return Chain(self.database, self.seal)
