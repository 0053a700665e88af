"""Record the decisions of a scored book in the ledger, as the API does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, starmap
from typing import Any

from peerloan.book import Book, BookError, CheckedPart, read_column
from peerloan.ledger import BatchWriter, Record, Version
from peerloan.ledger.records import warnings_json
from peerloan.ledger.write.loan_json import LOAN_EXPECTED, MAX_LOAN_BYTES, size_in_bytes
from peerloan.ledger.write.reason_json import ReasonTexts
from peerloan.loan import MAX_RUN_COMPARISONS, Problem, Suggestions, unusual_values
from peerloan.loan.text import parse_number
from peerloan.model import BatchReasons
from peerloan.registry import Bundle, Decisions
from peerloan.scoring.arrow_text import inputs_of, reason_lists
from peerloan.uuid7 import IdGenerator

# Limits of one transaction: decisions, and characters of their loans as JSON. Other writers, such
# as a service, wait while it runs.
_MAX_DECISIONS, _MAX_CHARACTERS = 5_000, 8_000_000


class BookRecorder:
    """Makes ledger records of a book's decisions and passes them to a batch writer."""

    def __init__(self, recorder: BatchWriter, bundle: Bundle, book: Book) -> None:
        self._recorder = recorder
        self._bundle, self._book = bundle, book
        self._version = Version.of(bundle)
        self._texts = ReasonTexts(bundle)
        self._ids = IdGenerator()
        self._suggestions = Suggestions(MAX_RUN_COMPARISONS)
        names, roles = bundle.definition.names, bundle.definition.roles
        # Role columns that are recorded with a loan, besides its fields.
        extra = set(book.columns).difference(names)
        self._id = next((name for name in (roles.id, "loan_id") if name in extra), None)
        role_columns = dict.fromkeys((self._id, roles.date, roles.exposure))
        self._others = [name for name in role_columns if name is not None and name in extra]

    def record(self, batch: CheckedPart, decisions: Decisions) -> list[bytes]:
        """Record a part's decisions and return their ids.

        Raises LedgerError if earlier decisions could not be recorded, BookError for a loan that is
        too large.
        """
        others = {name: self._column(batch, name) for name in self._others}
        inputs = inputs_of(batch.loans, others)
        largest = max(map(len, inputs), default=0)
        if largest * 4 > MAX_LOAN_BYTES:
            self._refuse_large(batch, inputs)
        ids = self._ids.many(batch.loans.size)
        recorder = self._recorder
        common = self._version, "book", recorder.caller, recorder.request_id, None
        nulls = [None] * len(ids)
        columns = (
            *([value] * len(ids) for value in common),
            *(others[self._id] if self._id else nulls, inputs),
            *(decisions.margins.tolist(), decisions.probabilities.tolist()),
            *(decisions.late.tolist(), decisions.bands.tolist()),
            nulls if decisions.reasons is None else self._reasons(decisions.reasons),
            self._warnings(batch),
        )
        records = starmap(Record, zip(ids, *columns, strict=True))
        chunk_size = min(_MAX_DECISIONS, _MAX_CHARACTERS // max(largest, 1))
        while chunk := list(islice(records, chunk_size)):
            recorder.put(chunk)
        return ids

    def _refuse_large(self, batch: CheckedPart, inputs: Sequence[str]) -> None:
        """Raise BookError for the first loan of more than MAX_LOAN_BYTES as JSON."""
        rows = batch.part.numbers[batch.good].tolist()
        for row, size in zip(rows, map(size_in_bytes, inputs), strict=True):
            if size > MAX_LOAN_BYTES:
                problem = Problem(row, "(loan)", LOAN_EXPECTED, f"{size:,}")
                raise BookError(self._book.bad_row(problem))

    def _column(self, batch: CheckedPart, name: str) -> list[Any]:
        """Read a role column of the good rows: as text, an exposure as a number if possible."""
        if name == self._bundle.definition.roles.id and batch.ids is not None:
            return batch.ids
        values = read_column(batch.part, name)
        if not batch.good.all():
            values = [value for value, good in zip(values, batch.good, strict=True) if good]
        if name == self._bundle.definition.roles.exposure:
            return [_number(value) for value in values]
        return values

    def _reasons(self, reasons: BatchReasons) -> list[str]:
        return reason_lists(self._texts.of_keys(reasons.keys), reasons.places)

    def _warnings(self, batch: CheckedPart) -> list[str | None]:
        of_version = self._bundle.warnings
        warnings = [warnings_json(of_version)] * batch.loans.size
        for i, of_loan in unusual_values(batch.loans, self._suggestions).items():
            warnings[i] = warnings_json(of_loan + of_version)
        return warnings


def _number(text: str | None) -> float | str | None:
    try:
        return None if text is None else parse_number(text)
    except ValueError:
        return text
