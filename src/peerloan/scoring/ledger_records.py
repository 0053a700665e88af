"""From a scored book to the ledger: the records that the API would make of its loans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, starmap
from typing import Any

from peerloan.book import Batch, Book, BookError, read_column
from peerloan.ledger import Record, Recorder, Version
from peerloan.ledger.records import warnings_json
from peerloan.ledger.write.loan_json import LOAN_EXPECTED, MAX_LOAN_BYTES, size_in_bytes
from peerloan.ledger.write.reason_json import ReasonTexts
from peerloan.loan import MAX_RUN_COMPARISONS, Problem, Suggestions, unusual_values
from peerloan.loan.text import parse_number
from peerloan.model import BatchReasons
from peerloan.registry import Bundle, Decisions
from peerloan.scoring.arrow_text import inputs_of, reason_lists
from peerloan.uuid7 import Ids

# Decisions of one transaction, and letters of their loans: other writers wait for it, a service's
# requests among them.
_AT_ONCE, _MOST_LETTERS = 5_000, 8_000_000


class Recording:
    """Makes records of a book's decisions, and hands them to a recorder."""

    def __init__(self, recorder: Recorder, bundle: Bundle, book: Book) -> None:
        self._recorder = recorder
        self._bundle, self._book = bundle, book
        self._version = Version.of(bundle)
        self._texts = ReasonTexts(bundle)
        self._ids = Ids()
        self._suggestions = Suggestions(MAX_RUN_COMPARISONS)
        names, roles = bundle.definition.names, bundle.definition.roles
        # What a loan has beside its fields.
        others = set(book.columns).difference(names)
        self._id = next((name for name in (roles.id, "loan_id") if name in others), None)
        wanted = dict.fromkeys((self._id, roles.date, roles.exposure))
        self._others = [name for name in wanted if name is not None and name in others]

    def keep(self, batch: Batch, decisions: Decisions) -> list[bytes]:
        """Hand over a part's decisions, and return their ids.

        Raises LedgerError if any before them could not be kept, or BookError for a loan that is too
        large to be.
        """
        others = {name: self._column(batch, name) for name in self._others}
        inputs = inputs_of(batch.loans, others)
        largest = max(map(len, inputs), default=0)
        if largest * 4 > MAX_LOAN_BYTES:
            self._refuse_large(batch, inputs)
        ids = self._ids.many(batch.loans.size)
        recorder = self._recorder
        common = self._version, "book", recorder.caller, recorder.request_id, None
        nothing = [None] * len(ids)
        columns = (
            *([each] * len(ids) for each in common),
            *(others[self._id] if self._id else nothing, inputs),
            *(decisions.margins.tolist(), decisions.probabilities.tolist()),
            *(decisions.late.tolist(), decisions.bands.tolist()),
            nothing if decisions.reasons is None else self._reasons(decisions.reasons),
            self._warnings(batch),
        )
        records = starmap(Record, zip(ids, *columns, strict=True))
        at_once = min(_AT_ONCE, _MOST_LETTERS // max(largest, 1))
        while some := list(islice(records, at_once)):
            recorder.put(some)
        return ids

    def _refuse_large(self, batch: Batch, inputs: Sequence[str]) -> None:
        rows = batch.part.numbers[batch.good].tolist()
        for row, size in zip(rows, map(size_in_bytes, inputs), strict=True):
            if size > MAX_LOAN_BYTES:
                problem = Problem(row, "(loan)", LOAN_EXPECTED, f"{size:,}")
                raise BookError(self._book.bad_row(problem))

    def _column(self, batch: Batch, name: str) -> list[Any]:
        """A column that is no field: text as it stands there, an exposure as a number if it is."""
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

    def _warnings(self, batch: Batch) -> list[str | None]:
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
