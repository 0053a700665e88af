"""Splits the ledger's matured outcomes into a training book (older) and a test book (newest)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from peerloan import uuid7
from peerloan.book import (
    Book,
    BookError,
    CheckedPart,
    DuplicateRows,
    check_columns,
    open_book,
    open_writer,
    read_loans,
)
from peerloan.clock import DAY_MS, date_of
from peerloan.database import Database
from peerloan.database.snapshot import snapshot
from peerloan.ledger.matured import (
    MaturityFilter,
    SkippedCounts,
    count_skipped,
    count_young,
    matured_decisions,
)
from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.loan import Definition, Loans, TextColumn, Value
from peerloan.loan.labels import label_text
from peerloan.monitoring.config import MonitoringConfig
from peerloan.stats.arrays import Codes
from peerloan.training.search import Progress

# Least number of late loans to train on.
LEAST_LATE = 200
# The newest fifth is the test set; more than a fifth if it has fewer late loans than this.
_FIFTH = 5
_TEST_LATE = 100
_READING = "reading matured outcomes"


class Count(NamedTuple):
    """Loans, and how many of them are late."""

    loans: int
    late: int


class Callers(NamedTuple):
    """Counts by caller, the largest first, of training loans (`learnt`) and test loans (`held`)."""

    learnt: dict[str, Count]
    held: dict[str, Count]

    def as_json(self) -> dict[str, Any]:
        """Return the counts as they are in an event."""
        return {
            part: {name: count._asdict() for name, count in own.items()}
            for part, own in self._asdict().items()
        }


@dataclass(frozen=True)
class Outcomes:
    """Loans with known outcomes, split into two books without a common loan.

    `older` is the training book: the config's book, if there is one, then the older outcomes.
    `newest` is the test book. Both are None if there are too few loans to split. `callers` counts
    the ledger's loans by who reported the outcome, `deciders` by whom the decision was made for.

    Left out are:
    - `unreadable`: loans that the definition can't read
    - `young`: loans of days of which too few outcomes are known
    - `passed_over`: see SkippedCounts
    - `again`: training rows that equal a row of the test book
    """

    older: Book | None
    newest: Book | None
    learnt: Count
    held: Count
    callers: Callers
    deciders: Callers
    unreadable: int
    young: int
    passed_over: SkippedCounts
    again: int = 0


def collect(
    database: Database,
    definition: Definition,
    config: MonitoringConfig,
    folder: Path,
    now_ms: int,
    progress: Progress = lambda _what, _done: None,
) -> Outcomes:
    """Write the matured loans known at `now_ms` (milliseconds since 1970) into a folder.

    They are split by the time of decision. Keeps 21 bytes a loan in memory, and the newest loans if
    the configuration names a book. Raises LedgerError, or BookError for that book.
    """
    # Checked before the ledger is read.
    book = None if config.book is None else open_book(config.book)
    if book is not None:
        check_columns(definition, book, label=True)
    form = _Form(definition)
    path = folder / "matured.parquet"
    progress(_READING, 0.0)
    named = config.outcomes_from, config.decisions_from
    eligible = MaturityFilter(now_ms, definition.roles.horizon[0], *named)
    written = _write(database, form, config.mature, path, eligible, progress)
    progress(_READING, 1.0)
    late = written.late
    cut = _cut(late)
    learnt, held = (Count(len(some), int(some.sum())) for some in (late[:cut], late[cut:]))
    left_out = written.unreadable, written.young, written.passed_over
    nobody = Callers({}, {})
    if not 0 < cut < len(late):
        return Outcomes(None, None, learnt, held, nobody, nobody, *left_out)
    fresh_older = _fresh(written.equal.groups(), cut)
    learnt = Count(int(fresh_older.sum()), int(late[:cut][fresh_older].sum()))
    chosen = np.flatnonzero(fresh_older), np.arange(cut, len(late))
    callers, deciders = (
        Callers(*(each.count(late, some) for some in chosen))
        for each in (written.callers, written.deciders)
    )
    every, known = open_book(path), _NewestLoans()
    with open_writer(folder / "newest.parquet", form.schema) as writer:
        for batch in _between(every, definition, cut, len(late)):
            writer.write(form.records(batch.loans, _labels(batch), batch.ids))
            if book is not None:
                known.add(batch)
    name, again = f"outcomes until {_shown(written.days[cut - 1])}", cut - learnt.loans
    with open_writer(folder / "older.parquet", form.schema) as writer:
        if book is not None:
            name = f"{Path(book.name).name} and {name}"
            for batch in _checked(book, definition, progress):
                fresh = known.others(batch)
                again += int((~fresh).sum())
                learnt = Count(
                    learnt.loans + int(fresh.sum()),
                    learnt.late + int(_labels(batch)[fresh].sum()),
                )
                records = form.records(batch.loans, _labels(batch), batch.ids)
                writer.write(records.filter(pa.array(fresh)))
        done = 0
        for batch in _between(every, definition, 0, cut):
            kept = pa.array(fresh_older[done : done + batch.loans.size])
            done += batch.loans.size
            writer.write(form.records(batch.loans, _labels(batch), batch.ids).filter(kept))
    # Named, since versions keep the name of their training book.
    older = replace(open_book(folder / "older.parquet"), name=name)
    newest = open_book(folder / "newest.parquet")
    newest = replace(newest, name=f"outcomes until {_shown(written.days[-1])}")
    return Outcomes(older, newest, learnt, held, callers, deciders, *left_out, again)


class _Names:
    """A caller's name for each loan, stored compactly: each name once."""

    def __init__(self) -> None:
        self._codes = array("i")
        self._numbers: dict[str, int] = {}

    def append(self, name: str) -> None:
        """Add the name of the next loan."""
        self._codes.append(self._numbers.setdefault(name, len(self._numbers)))

    def count(self, late: npt.NDArray[np.int8], chosen: Codes) -> dict[str, Count]:
        """Count the loans at these positions by name, the most first; `late` (n,) is 1 or 0."""
        own, size = np.array(self._codes, np.int32)[chosen], len(self._numbers)
        loans = np.bincount(own, minlength=size)
        late_ones = np.bincount(own, late[chosen], minlength=size).astype(np.int64)
        rows = zip(self._numbers, loans.tolist(), late_ones.tolist(), strict=True)
        ranked = sorted(rows, key=lambda row: (-row[1], row[0]))
        return {name: Count(*counts) for name, *counts in ranked if counts[0]}


class _Written(NamedTuple):
    """Data of the written loans, in columns.

    These are: 1 if late, the day of the decision, who reported the outcome, for whom the decision
    was made, and a hash of the values.
    """

    late: npt.NDArray[np.int8]
    days: npt.NDArray[np.int32]
    callers: _Names
    deciders: _Names
    unreadable: int
    young: int
    passed_over: SkippedCounts
    equal: DuplicateRows


class _Form:
    """The columns of the books: the definition's fields, its label, and the loan's id.

    The id is there only if the definition names its column.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        label = definition.label
        self._values = [label_text(label.on_time), label_text(label.late)]
        role = definition.roles.id
        self._id = None if role in definition.names else role
        kinds = {
            field.name: pa.float64() if field.is_number else pa.string()
            for field in definition.fields
        }
        kinds[label.column] = pa.string()
        if self._id is not None:
            kinds[self._id] = pa.string()
        self.schema = pa.schema(list(kinds.items()))

    def records(
        self, loans: Loans, late: Codes, loan_ids: list[str | None] | None
    ) -> pa.RecordBatch:
        """Return loans as records; `late` (n,) is 1 or 0."""
        arrays = []
        for name in self.definition.names:
            column = loans.columns[name]
            if isinstance(column, TextColumn):
                arrays.append(pa.array(column.values(), pa.string()))
            else:
                arrays.append(pa.array(column, pa.float64(), from_pandas=True))
        arrays.append(pa.array([self._values[each] for each in late.tolist()], pa.string()))
        if self._id is not None:
            ids = [None] * loans.size if loan_ids is None else loan_ids
            arrays.append(pa.array(ids, pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _NewestLoans:
    """The newest loans, to find them in a book: by id, or by all their values."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._values: set[tuple[Value, ...]] = set()

    def add(self, batch: CheckedPart) -> None:
        """Add loans."""
        self._ids.update(each for each in batch.ids or () if each is not None)
        self._values.update(batch.loans.rows())

    def others(self, batch: CheckedPart) -> npt.NDArray[np.bool_]:
        """Return which loans of a batch (n,) are not among them."""
        loan_ids = batch.ids or [None] * batch.loans.size
        rows = zip(loan_ids, batch.loans.rows(), strict=True)
        return np.array(
            [each not in self._ids and row not in self._values for each, row in rows],
            dtype=np.bool_,
        )


def _write(
    database: Database,
    form: _Form,
    share: float,
    path: Path,
    eligible: MaturityFilter,
    progress: Progress,
) -> _Written:
    """Write all readable matured loans, the oldest first."""
    reader = InputReader(form.definition)
    late, days, callers, deciders = array("b"), array("i"), _Names(), _Names()
    unreadable, equal = 0, DuplicateRows()
    with snapshot(database) as connection, open_writer(path, form.schema) as writer:
        young = count_young(connection, share, eligible)
        progress(_READING, 0.0)
        passed_over = count_skipped(connection, eligible)
        # Each query may take minutes if there are many outcomes.
        progress(_READING, 0.0)
        for batch in matured_decisions(connection, share, eligible):
            progress(_READING, 0.0)
            rows, labels, loan_ids = [], [], []
            for each in batch:
                try:
                    rows.append(reader.read(each.inputs).values)
                except InputUnreadable:
                    unreadable += 1
                    continue
                labels.append(int(each.late))
                loan_ids.append(each.loan_id)
                days.append(uuid7.milliseconds(each.id) // DAY_MS)
                callers.append(each.caller)
                deciders.append(each.decided_for)
            late.extend(labels)
            loans, outcomes = Loans.of(form.definition, rows), np.array(labels, dtype=np.int64)
            equal.add(loans, outcomes)
            writer.write(form.records(loans, outcomes, loan_ids))
    columns = np.array(late, np.int8), np.array(days, np.int32), callers, deciders
    return _Written(*columns, unreadable, young, passed_over, equal)


def _fresh(groups: Codes | None, cut: int) -> npt.NDArray[np.bool_]:
    """Return which of the older loans (cut,) equal none of the newest.

    A version that is trained on equal loans would know the outcome that it is tested on.
    """
    if groups is None:
        return np.ones(cut, dtype=np.bool_)
    return ~np.isin(groups[:cut], groups[cut:])


def _cut(late: npt.NDArray[np.int8]) -> int:
    """Return the index from which loans are held out; `late` (n,) is 1 or 0, the oldest first.

    A fifth is held out. If it has too few late loans, more are, as long as the training loans keep
    the late ones that they need.
    """
    cut = len(late) - len(late) // _FIFTH
    places = np.flatnonzero(late)
    if len(places) < LEAST_LATE:
        return cut
    return min(cut, max(int(places[-_TEST_LATE]), int(places[LEAST_LATE - 1]) + 1))


def _between(book: Book, definition: Definition, first: int, end: int) -> Iterator[CheckedPart]:
    """Yield the rows of a book from `first` on and before `end`, counted from 0."""
    done = 0
    for part in book.parts():
        low, high = max(first - done, 0), min(end - done, part.size)
        done += part.size
        if low < high:
            rows = replace(
                part,
                records=part.records.slice(low, high - low),
                numbers=part.numbers[low:high],
            )
            yield read_loans(definition, rows, label=True)


def _checked(book: Book, definition: Definition, progress: Progress) -> Iterator[CheckedPart]:
    """Yield the rows of a book. Raises BookError at a bad row, as training does."""
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True)
        if batch.problems:
            bad = book.bad_row(batch.problems[0])
            raise BookError(f"{bad}; `peerloan check` names every bad row")
        yield batch


def _labels(batch: CheckedPart) -> Codes:
    assert batch.labels is not None  # noqa: S101  read with label=True
    return batch.labels


def _shown(day: np.int32) -> str:
    return str(date_of(int(day)))
