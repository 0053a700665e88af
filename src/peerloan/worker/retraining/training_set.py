"""Split the ledger's matured outcomes into a training book (older) and a test book (newest)."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
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
    BookWriter,
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

# Fewest late loans in the training book.
MIN_TRAINING_LATE = 200
# The test book is the newest fifth of the loans, or more if the fifth has too few late ones.
_TEST_FRACTION = 5
_TEST_LATE = 100
_READING = "reading matured outcomes"


class Count(NamedTuple):
    """Numbers of loans and of late loans."""

    loans: int
    late: int


class CallerCounts(NamedTuple):
    """Counts of training and test loans by caller, the most loans first."""

    training: dict[str, Count]
    test: dict[str, Count]

    def as_json(self) -> dict[str, Any]:
        """Return the counts as they are in an event."""
        parts = {"learnt": self.training, "held": self.test}
        return {
            key: {name: count._asdict() for name, count in counts.items()}
            for key, counts in parts.items()
        }


@dataclass(frozen=True)
class SplitOutcomes:
    """Loans with known outcomes, split into two books without a common loan.

    `training_book` contains the config's book, if there is one, and the older outcomes. `test_book`
    contains the newest outcomes. Both are None if there are too few loans to split. `reporters`
    counts the ledger's loans by the caller that reported the outcome, `deciders` by the caller that
    the decision was made for.

    Numbers of loans that are left out:
    - `unreadable`: the definition can't read them
    - `young`: too few outcomes of their day are known
    - `skipped`: see SkippedCounts
    - `duplicates`: training rows that equal a row of the test book
    """

    training_book: Book | None
    test_book: Book | None
    training: Count
    test: Count
    reporters: CallerCounts
    deciders: CallerCounts
    unreadable: int
    young: int
    skipped: SkippedCounts
    duplicates: int = 0


def split_outcomes(
    database: Database,
    definition: Definition,
    config: MonitoringConfig,
    folder: Path,
    now_ms: int,
    progress: Progress = lambda _what, _done: None,
) -> SplitOutcomes:
    """Write the outcomes known at `now_ms` (milliseconds since 1970) as two books into a folder.

    They are split by the time of decision. Needs 21 bytes of memory for each loan. If the config
    names a book, the newest loans are also in memory. Raises LedgerError, or BookError for the
    config's book.
    """
    # The config's book is checked first, because reading the ledger takes long.
    book = None if config.book is None else open_book(config.book)
    if book is not None:
        check_columns(definition, book, label=True)
    layout = _BookLayout(definition)
    path = folder / "matured.parquet"
    progress(_READING, 0.0)
    callers = config.outcomes_from, config.decisions_from
    eligible = MaturityFilter(now_ms, definition.roles.horizon[0], *callers)
    ledger = _write_matured(database, layout, config.mature, path, eligible, progress)
    progress(_READING, 1.0)
    late = ledger.late
    cut = _split_position(late)
    if not 0 < cut < len(late):
        empty = CallerCounts({}, {})
        return SplitOutcomes(
            training_book=None,
            test_book=None,
            training=_count(late[:cut]),
            test=_count(late[cut:]),
            reporters=empty,
            deciders=empty,
            unreadable=ledger.unreadable,
            young=ledger.young,
            skipped=ledger.skipped,
        )
    is_distinct = _differs_from_test(ledger.duplicates.groups(), cut)
    positions = np.flatnonzero(is_distinct), np.arange(cut, len(late))
    reporters, deciders = (
        CallerCounts(*(names.count(late, part) for part in positions))
        for names in (ledger.reporters, ledger.deciders)
    )
    matured = open_book(path)
    test_loans = _LoanIndex()
    with open_writer(folder / "newest.parquet", layout.schema) as writer:
        for batch in _rows_between(matured, definition, cut, len(late)):
            writer.write(layout.records(batch.loans, _labels(batch), batch.ids))
            if book is not None:
                test_loans.add(batch)
    training, duplicates = _count(late[:cut][is_distinct]), cut - int(is_distinct.sum())
    name = f"outcomes until {_day_text(ledger.days[cut - 1])}"
    with open_writer(folder / "older.parquet", layout.schema) as writer:
        if book is not None:
            name = f"{Path(book.name).name} and {name}"
            parts = _checked_parts(book, definition, progress)
            in_book, in_both = _write_others(writer, layout, parts, test_loans)
            training = Count(training.loans + in_book.loans, training.late + in_book.late)
            duplicates += in_both
        _write_chosen(writer, layout, _rows_between(matured, definition, 0, cut), is_distinct)
    # Versions store the name of their training book.
    training_book = replace(open_book(folder / "older.parquet"), name=name)
    test_name = f"outcomes until {_day_text(ledger.days[-1])}"
    return SplitOutcomes(
        training_book=training_book,
        test_book=replace(open_book(folder / "newest.parquet"), name=test_name),
        training=training,
        test=_count(late[cut:]),
        reporters=reporters,
        deciders=deciders,
        unreadable=ledger.unreadable,
        young=ledger.young,
        skipped=ledger.skipped,
        duplicates=duplicates,
    )


class _CallerNames:
    """The name of a caller for each loan. A name is stored once, to save memory."""

    def __init__(self) -> None:
        self._codes = array("i")
        self._numbers: dict[str, int] = {}

    def append(self, name: str) -> None:
        """Add the name of the next loan."""
        self._codes.append(self._numbers.setdefault(name, len(self._numbers)))

    def count(self, late: npt.NDArray[np.int8], positions: Codes) -> dict[str, Count]:
        """Count the loans at these positions by name, the most loans first.

        `late` (n,) is 1 or 0 for each loan.
        """
        codes, size = np.array(self._codes, np.int32)[positions], len(self._numbers)
        loans = np.bincount(codes, minlength=size)
        late_loans = np.bincount(codes, late[positions], minlength=size).astype(np.int64)
        rows = zip(self._numbers, loans.tolist(), late_loans.tolist(), strict=True)
        ranked = sorted(rows, key=lambda row: (-row[1], row[0]))
        return {name: Count(*counts) for name, *counts in ranked if counts[0]}


class _MaturedLoans(NamedTuple):
    """Data of the matured loans of the ledger, in the order of decision.

    `late` (n,) is 1 or 0, `days` (n,) are the days of decision since 1970, `reporters` and
    `deciders` the callers of each loan. `duplicates` finds loans with equal values. The others are
    numbers of loans that are left out: see SplitOutcomes.
    """

    late: npt.NDArray[np.int8]
    days: npt.NDArray[np.int32]
    reporters: _CallerNames
    deciders: _CallerNames
    unreadable: int
    young: int
    skipped: SkippedCounts
    duplicates: DuplicateRows


class _BookLayout:
    """The columns of the books: the definition's fields, its label, and the loan's id.

    The id has no column of its own if it is one of the fields.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        label = definition.label
        self._label_texts = [label_text(label.on_time), label_text(label.late)]
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
        """Return loans as records; `late` (n,) is 1 or 0 for each loan."""
        arrays = []
        for name in self.definition.names:
            column = loans.columns[name]
            if isinstance(column, TextColumn):
                arrays.append(pa.array(column.values(), pa.string()))
            else:
                arrays.append(pa.array(column, pa.float64(), from_pandas=True))
        arrays.append(pa.array([self._label_texts[code] for code in late.tolist()], pa.string()))
        if self._id is not None:
            ids = [None] * loans.size if loan_ids is None else loan_ids
            arrays.append(pa.array(ids, pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _LoanIndex:
    """A set of loans, to find the same loans in a book: by id, or by all their values."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._values: set[tuple[Value, ...]] = set()

    def add(self, batch: CheckedPart) -> None:
        """Add the loans of a batch."""
        self._ids.update(loan_id for loan_id in batch.ids or () if loan_id is not None)
        self._values.update(batch.loans.rows())

    def excludes(self, batch: CheckedPart) -> npt.NDArray[np.bool_]:
        """Return whether each loan of a batch (n,) is not in the set."""
        loan_ids = batch.ids or [None] * batch.loans.size
        rows = zip(loan_ids, batch.loans.rows(), strict=True)
        return np.array(
            [loan_id not in self._ids and row not in self._values for loan_id, row in rows],
            dtype=np.bool_,
        )


def _write_matured(
    database: Database,
    layout: _BookLayout,
    share: float,
    path: Path,
    eligible: MaturityFilter,
    progress: Progress,
) -> _MaturedLoans:
    """Write all readable matured loans to a file, the oldest first."""
    reader = InputReader(layout.definition)
    late, days, reporters, deciders = array("b"), array("i"), _CallerNames(), _CallerNames()
    unreadable, duplicates = 0, DuplicateRows()
    with snapshot(database) as connection, open_writer(path, layout.schema) as writer:
        young = count_young(connection, share, eligible)
        progress(_READING, 0.0)
        skipped = count_skipped(connection, eligible)
        # Progress after each query, because a query of many outcomes may take minutes.
        progress(_READING, 0.0)
        for batch in matured_decisions(connection, share, eligible):
            progress(_READING, 0.0)
            rows, labels, loan_ids = [], [], []
            for decision in batch:
                try:
                    rows.append(reader.read(decision.inputs).values)
                except InputUnreadable:
                    unreadable += 1
                    continue
                labels.append(int(decision.late))
                loan_ids.append(decision.loan_id)
                days.append(uuid7.milliseconds(decision.id) // DAY_MS)
                reporters.append(decision.caller)
                deciders.append(decision.decided_for)
            late.extend(labels)
            loans, outcomes = Loans.of(layout.definition, rows), np.array(labels, dtype=np.int64)
            duplicates.add(loans, outcomes)
            writer.write(layout.records(loans, outcomes, loan_ids))
    columns = np.array(late, np.int8), np.array(days, np.int32), reporters, deciders
    return _MaturedLoans(*columns, unreadable, young, skipped, duplicates)


def _write_others(
    writer: BookWriter, layout: _BookLayout, parts: Iterable[CheckedPart], loans: _LoanIndex
) -> tuple[Count, int]:
    """Write the rows that are not among some loans. Returns their count, and that of the others."""
    written, left_out = Count(0, 0), 0
    for batch in parts:
        is_other = loans.excludes(batch)
        left_out += int((~is_other).sum())
        count = _count(_labels(batch)[is_other])
        written = Count(written.loans + count.loans, written.late + count.late)
        records = layout.records(batch.loans, _labels(batch), batch.ids)
        writer.write(records.filter(pa.array(is_other)))
    return written, left_out


def _write_chosen(
    writer: BookWriter,
    layout: _BookLayout,
    parts: Iterable[CheckedPart],
    is_chosen: npt.NDArray[np.bool_],
) -> None:
    """Write the rows for which `is_chosen` (rows,) is true."""
    done = 0
    for batch in parts:
        in_batch = pa.array(is_chosen[done : done + batch.loans.size])
        done += batch.loans.size
        records = layout.records(batch.loans, _labels(batch), batch.ids)
        writer.write(records.filter(in_batch))


def _count(late: npt.NDArray[Any]) -> Count:
    """Count loans; `late` (n,) is 1 or 0 for each of them."""
    return Count(len(late), int(late.sum()))


def _differs_from_test(groups: Codes | None, cut: int) -> npt.NDArray[np.bool_]:
    """Return whether each loan before `cut` differs from all loans from `cut` on (cut,).

    `groups` (n,) are equal for loans with equal values. A model that is trained on a loan of the
    test book would already have seen the outcome that it is tested on.
    """
    if groups is None:
        return np.ones(cut, dtype=np.bool_)
    return ~np.isin(groups[:cut], groups[cut:])


def _split_position(late: npt.NDArray[np.int8]) -> int:
    """Return the position from which loans are test loans.

    `late` (n,) is 1 or 0, in the order of decision. A fifth are test loans. If these have too few
    late loans, the test set is larger, as long as enough late loans are left for training.
    """
    cut = len(late) - len(late) // _TEST_FRACTION
    late_positions = np.flatnonzero(late)
    if len(late_positions) < MIN_TRAINING_LATE:
        return cut
    enough_for_test = int(late_positions[-_TEST_LATE])
    enough_for_training = int(late_positions[MIN_TRAINING_LATE - 1]) + 1
    return min(cut, max(enough_for_test, enough_for_training))


def _rows_between(
    book: Book, definition: Definition, first: int, end: int
) -> Iterator[CheckedPart]:
    """Yield the rows of a book from position `first` to before `end`, counted from 0."""
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


def _checked_parts(book: Book, definition: Definition, progress: Progress) -> Iterator[CheckedPart]:
    """Yield the rows of a book. Raises BookError at the first bad row."""
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True)
        if batch.problems:
            bad = book.bad_row(batch.problems[0])
            raise BookError(f"{bad}; `peerloan check` lists all bad rows")
        yield batch


def _labels(batch: CheckedPart) -> Codes:
    assert batch.labels is not None  # noqa: S101  read with label=True
    return batch.labels


def _day_text(day: np.int32) -> str:
    return str(date_of(int(day)))
