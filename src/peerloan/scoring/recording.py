"""From a scored book to the ledger: the records that the API would make of its loans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, repeat
from typing import Any

import msgspec

from peerloan.book import Batch, Book, read_column
from peerloan.ledger import Ids, Record, Recorder, Version
from peerloan.ledger.reasons import ReasonTexts
from peerloan.ledger.records import as_json
from peerloan.loan import doubts_of
from peerloan.loan.text import parse_number
from peerloan.model import Bundle
from peerloan.scoring.deciding import Decided

# Decisions of one transaction: other writers wait for it, a service's requests among them.
_AT_ONCE = 5_000


class Recording:
    """Makes records of a book's decisions, and hands them to a recorder."""

    def __init__(self, recorder: Recorder, bundle: Bundle, book: Book) -> None:
        self._recorder = recorder
        self._bundle = bundle
        self._version = Version.of(bundle)
        self._texts = ReasonTexts(bundle)
        self._ids = Ids()
        names, roles = bundle.definition.names, bundle.definition.roles
        self._id = next((name for name in (roles.id, "loan_id") if name in book.columns), None)
        wanted = dict.fromkeys((self._id, roles.date, roles.exposure))
        # What a loan has beside its fields.
        self._others = [name for name in wanted if name in book.columns and name not in names]
        # A column may have any name, an attribute may not.
        rename = {f"f{i}": name for i, name in enumerate((*names, *filter(None, self._others)))}
        self._loan = msgspec.defstruct("Loan", [(each, Any) for each in rename], rename=rename)

    def keep(self, batch: Batch, decided: Decided) -> list[bytes]:
        """Hand over a part's decisions, and return their ids.

        Raises LedgerError if any before them could not be kept.
        """
        others = [self._column(batch, str(name)) for name in self._others]
        encode, loan = msgspec.json.encode, self._loan
        inputs = (
            encode(loan(*row, *more)).decode()
            for row, more in zip(
                decided.rows, zip(*others, strict=True) if others else repeat(()), strict=False
            )
        )
        ids = [self._ids.new() for _ in decided.rows]
        records = map(
            Record,
            *(ids, repeat(self._version), repeat("book"), repeat(self._recorder.caller)),
            *(repeat(self._recorder.request_id), repeat(None)),
            *(others[0] if self._id else repeat(None), inputs),
            *(decided.margins.tolist(), decided.probabilities.tolist()),
            *(decided.late.tolist(), decided.bands.tolist()),
            *(self._reasons(decided), self._warnings(batch, decided)),
        )
        while some := list(islice(records, _AT_ONCE)):
            self._recorder.put(some)
        return ids

    def _column(self, batch: Batch, name: str) -> list[Any]:
        """A column that is no field: text as it stands there, an exposure as a number if it is."""
        values = read_column(batch.part, name)
        if not batch.good.all():
            values = [value for value, good in zip(values, batch.good, strict=True) if good]
        if name == self._bundle.definition.roles.exposure:
            return [_number(value) for value in values]
        return values

    def _reasons(self, decided: Decided) -> Sequence[str | None]:
        if decided.contributions is None:
            return [None] * len(decided.rows)
        return self._texts.of_many(decided.rows, decided.contributions)

    def _warnings(self, batch: Batch, decided: Decided) -> list[str | None]:
        usual = self._bundle.warnings
        warnings = [as_json(usual) if usual else None] * len(decided.rows)
        for i, doubts in doubts_of(batch.loans, decided.rows).items():
            warnings[i] = as_json(doubts + usual)
        return warnings


def _number(text: str | None) -> float | str | None:
    try:
        return None if text is None else parse_number(text)
    except ValueError:
        return text
