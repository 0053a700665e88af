"""A ledger with decisions of other times, and their outcomes."""

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
    """A writer of decisions whose times the test chooses."""

    def __init__(
        self, database: Database, seal: Path, bundle: Bundle, write_heads: bool = True
    ) -> None:
        """`write_heads`: write the chain's head after each `decide`, as a service does.

        Readers then also look for decisions that were committed long after their time.
        """
        self._write_heads = write_heads
        self._database, self._bundle = database, bundle
        self._version = Version.of(bundle)
        self._reader = InputReader(bundle.definition)
        self._chain = Chain(database, Seal(seal))

    def decide(
        self, loans: Sequence[dict[str, object]], start_ms: int, end_ms: int, source: str = "api"
    ) -> list[bytes]:
        """Record decisions on loans, spread evenly over a time. A loan may have a `loan_id`.

        Returns the ids.
        """
        inputs = [msgspec.json.encode(loan).decode() for loan in loans]
        margins = self.margins(inputs)
        policy = self._bundle.policy
        ids = [new_id(start_ms + (end_ms - start_ms) * i // len(loans)) for i in range(len(loans))]
        columns = (
            *(ids, itertools.repeat(self._version), itertools.repeat(source)),
            *(itertools.repeat("past"), itertools.repeat(""), itertools.repeat(None)),
            *([loan.get("loan_id") for loan in loans], inputs, margins.tolist()),
            *(probabilities(margins).tolist(), policy.late_many(margins).tolist()),
            *(policy.bands_many(margins).tolist(), itertools.repeat(None), itertools.repeat(None)),
        )
        records = list(itertools.starmap(Record, zip(*columns, strict=False)))
        for i in range(0, len(records), _AT_ONCE):
            self._chain.append([Entry(records[i : i + _AT_ONCE])])
        if self._write_heads:
            self._chain.write_head()
        return ids

    def margins(self, inputs: Sequence[str]) -> npt.NDArray[np.float64]:
        """The margins of loans that are given as JSON."""
        loans, is_valid = self._reader.read_many(inputs)
        assert is_valid.all()
        return self._bundle.score_many(loans)[0]

    def report_outcomes(
        self, ids: Sequence[bytes], late: Sequence[object], who: str = "past"
    ) -> None:
        """Report the outcomes of decisions, as values of the label."""
        recorder = OutcomeRecorder(self._database, self._bundle.definition, who)
        rows = [
            {"id": uuid7.text(id_), "late": value in (True, 1, "1")}
            for id_, value in zip(ids, late, strict=True)
        ]
        for i in range(0, len(rows), _AT_ONCE):
            recorder.record(enumerate(rows[i : i + _AT_ONCE], i + 1))

    def close(self) -> None:
        """Close the chain."""
        self._chain.close()


def loans_of(book: Path, bundle: Bundle) -> Iterator[tuple[dict[str, object], str]]:
    """The loans of a CSV book in the form of the API, with their labels."""
    definition = bundle.definition
    with book.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            loan: dict[str, object] = {"loan_id": row["loan_id"]} if "loan_id" in row else {}
            for field in definition.fields:
                cell = row[field.name]
                loan[field.name] = None if not cell else float(cell) if field.is_number else cell
            yield loan, row[definition.label.column]
