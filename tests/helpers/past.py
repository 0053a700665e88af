"""Decisions as a service would have made them at another time, and their outcomes."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from helpers.ledgers import new_id
from peerloan import uuid7
from peerloan.database import Database
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.ledger.outcomes import OutcomeRecorder
from peerloan.ledger.stored_inputs import InputReader
from peerloan.model import probabilities
from peerloan.registry import Bundle

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_AT_ONCE = 5_000


class Past:
    """A ledger whose decisions are told when they were made."""

    def __init__(self, database: Database, seal: Path, bundle: Bundle, tells: bool = True) -> None:
        """`tells`: at once how far it is, as a writer does each minute: what it commits long after
        it was made is looked for then.
        """
        self._tells = tells
        self._database, self._bundle = database, bundle
        self._version = Version.of(bundle)
        self._reader = InputReader(bundle.definition)
        self._chain = Chain(database, Seal(seal))

    def decide(
        self, loans: Sequence[dict[str, object]], start_ms: int, end_ms: int, source: str = "api"
    ) -> list[bytes]:
        """Decide on loans, evenly over a time; each may hold its `loan_id`. Returns the ids."""
        inputs = [msgspec.json.encode(loan).decode() for loan in loans]
        margins = self.margins(inputs)
        policy = self._bundle.policy
        made = [new_id(start_ms + (end_ms - start_ms) * i // len(loans)) for i in range(len(loans))]
        columns = (
            *(made, itertools.repeat(self._version), itertools.repeat(source)),
            *(itertools.repeat("past"), itertools.repeat(""), itertools.repeat(None)),
            *([loan.get("loan_id") for loan in loans], inputs, margins.tolist()),
            *(probabilities(margins).tolist(), policy.late_many(margins).tolist()),
            *(policy.bands_many(margins).tolist(), itertools.repeat(None), itertools.repeat(None)),
        )
        records = list(itertools.starmap(Record, zip(*columns, strict=False)))
        for i in range(0, len(records), _AT_ONCE):
            self._chain.append([Entry(records[i : i + _AT_ONCE])])
        if self._tells:
            self._chain.write_head()
        return made

    def margins(self, inputs: Sequence[str]) -> npt.NDArray[np.float64]:
        """The margins of loans, given as JSON."""
        read, good = self._reader.read_many(inputs)
        assert good.all()
        return self._bundle.score_many(read)[0]

    def tell(self, made: Sequence[bytes], late: Sequence[object], who: str = "past") -> None:
        """Tell what became of decisions: each the label's value."""
        recorder = OutcomeRecorder(self._database, self._bundle.definition, who)
        rows = [
            {"id": uuid7.text(each), "late": value in (True, 1, "1")}
            for each, value in zip(made, late, strict=True)
        ]
        for i in range(0, len(rows), _AT_ONCE):
            recorder.record(enumerate(rows[i : i + _AT_ONCE], i + 1))

    def close(self) -> None:
        """End the chain."""
        self._chain.close()


def loans_of(book: Path, bundle: Bundle) -> Iterator[tuple[dict[str, object], str]]:
    """The loans of a CSV book, as callers send them, and their labels."""
    definition = bundle.definition
    with book.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            loan: dict[str, object] = {"loan_id": row["loan_id"]} if "loan_id" in row else {}
            for field in definition.fields:
                given = row[field.name]
                loan[field.name] = None if not given else float(given) if field.is_number else given
            yield loan, row[definition.label.column]
