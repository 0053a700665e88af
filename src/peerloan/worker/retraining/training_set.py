"""The ledger's matured outcomes as two books: the older one is learnt from, the newest judges."""

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
    Batch,
    Book,
    BookError,
    EqualRows,
    check_columns,
    open_book,
    open_writer,
    read_loans,
)
from peerloan.clock import DAY_MS, date_of
from peerloan.database import Database
from peerloan.database.snapshot import snapshot
from peerloan.ledger.matured import (
    Eligible,
    PassedOver,
    count_passed_over,
    count_young,
    matured,
)
from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.loan import Definition, Loans, TextColumn, Value
from peerloan.monitoring.config import Plan
from peerloan.stats.arrays import Codes
from peerloan.training.search import Progress

# Fewer late loans are too few to learn from.
LEAST_LATE = 200
# The newest fifth judges, or more of the newest if it holds fewer late loans than these.
_FIFTH = 5
_WANTED = 100
_READING = "reading matured outcomes"


class Count(NamedTuple):
    """Loans, and how many of them are late."""

    loans: int
    late: int


class Callers(NamedTuple):
    """Whose outcomes or decisions they are, the largest share first: of loans that are learnt
    from, and that judge.
    """

    learnt: dict[str, Count]
    held: dict[str, Count]

    def as_json(self) -> dict[str, Any]:
        """Counts by caller, as an event tells them."""
        return {
            part: {name: count._asdict() for name, count in own.items()}
            for part, own in self._asdict().items()
        }


@dataclass(frozen=True)
class Outcomes:
    """Loans whose outcomes are known, as two books that have no loan in common.

    `older` is learnt from: the plan's book, if there is one, and behind it the older outcomes;
    `newest` is held out, and judges. Both are None if there are too few loans to part. Of the
    ledger's loans among them `callers` says who told their outcomes, and `deciders` for whom they
    were decided on. Left out are `unreadable`
    loans, which the definition can't read, `young` ones, of days of which too few outcomes are
    known, those `passed_over`, and `again`, rows to learn from that are among the newest outcomes.
    """

    older: Book | None
    newest: Book | None
    learnt: Count
    held: Count
    callers: Callers
    deciders: Callers
    unreadable: int
    young: int
    passed_over: PassedOver
    again: int = 0


def collect(
    database: Database,
    definition: Definition,
    plan: Plan,
    folder: Path,
    now_ms: int,
    progress: Progress = lambda _what, _done: None,
) -> Outcomes:
    """Write what is known `now_ms` (milliseconds since 1970) of matured loans into a folder, and
    part it by the time of decision.

    In memory it keeps 21 bytes a loan, and the newest loans beside a plan's book. Raises
    LedgerError, or BookError for the plan's book.
    """
    # Before the ledger is read.
    book = None if plan.book is None else open_book(plan.book)
    if book is not None:
        check_columns(definition, book, label=True)
    form = _Form(definition)
    path = folder / "matured.parquet"
    progress(_READING, 0.0)
    named = plan.outcomes_from, plan.decisions_from
    eligible = Eligible(now_ms, definition.roles.horizon[0], *named)
    found = _write(database, form, plan.mature, path, eligible, progress)
    progress(_READING, 1.0)
    late = found.late
    cut = _cut(late)
    learnt, held = (Count(len(some), int(some.sum())) for some in (late[:cut], late[cut:]))
    left_out = found.unreadable, found.young, found.passed_over
    nobody = Callers({}, {})
    if not 0 < cut < len(late):
        return Outcomes(None, None, learnt, held, nobody, nobody, *left_out)
    fresh_older = _fresh(found.equal.groups(), cut)
    learnt = Count(int(fresh_older.sum()), int(late[:cut][fresh_older].sum()))
    chosen = np.flatnonzero(fresh_older), np.arange(cut, len(late))
    callers, deciders = (
        Callers(*(each.count(late, some) for some in chosen))
        for each in (found.callers, found.deciders)
    )
    every, known = open_book(path), _Known()
    with open_writer(folder / "newest.parquet", form.schema) as writer:
        for batch in _between(every, definition, cut, len(late)):
            writer.write(form.records(batch.loans, _labels(batch), batch.ids))
            if book is not None:
                known.add(batch)
    name, again = f"outcomes until {_shown(found.days[cut - 1])}", cut - learnt.loans
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
    # Versions keep the name of what they were trained on.
    older = replace(open_book(folder / "older.parquet"), name=name)
    newest = open_book(folder / "newest.parquet")
    newest = replace(newest, name=f"outcomes until {_shown(found.days[-1])}")
    return Outcomes(older, newest, learnt, held, callers, deciders, *left_out, again)


class _Names:
    """A name of each loan, and each name kept once."""

    def __init__(self) -> None:
        self._codes = array("i")
        self._numbers: dict[str, int] = {}

    def append(self, name: str) -> None:
        """The next loan's."""
        self._codes.append(self._numbers.setdefault(name, len(self._numbers)))

    def count(self, late: npt.NDArray[np.int8], chosen: Codes) -> dict[str, Count]:
        """The loans at these positions by their names, the most first; `late` is 1 or 0 of all."""
        own, size = np.array(self._codes, np.int32)[chosen], len(self._numbers)
        loans = np.bincount(own, minlength=size)
        late_ones = np.bincount(own, late[chosen], minlength=size).astype(np.int64)
        rows = zip(self._numbers, loans.tolist(), late_ones.tolist(), strict=True)
        ranked = sorted(rows, key=lambda row: (-row[1], row[0]))
        return {name: Count(*counts) for name, *counts in ranked if counts[0]}


class _Written(NamedTuple):
    """What was written, loan by loan: 1 for a late one, the day of its decision, who told its
    outcome, for whom it was decided on, and its values as a hash.
    """

    late: npt.NDArray[np.int8]
    days: npt.NDArray[np.int32]
    callers: _Names
    deciders: _Names
    unreadable: int
    young: int
    passed_over: PassedOver
    equal: EqualRows


class _Form:
    """The columns of the books: the definition's fields, its label, and the loan's id if it has a
    role. (By their ids loans of the built-in sample are known again.)
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        label = definition.label
        self._values = [_text(label.on_time), _text(label.late)]
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
        """Loans as they are written; `late` is 1 or 0 of each."""
        arrays = []
        for name in self.definition.names:
            column = loans.columns[name]
            if isinstance(column, TextColumn):
                arrays.append(pa.array(column.values(), pa.string()))
            else:
                arrays.append(pa.array(column, pa.float64(), from_pandas=True))
        arrays.append(pa.array([self._values[each] for each in late.tolist()], pa.string()))
        if self._id is not None:
            given = [None] * loans.size if loan_ids is None else loan_ids
            arrays.append(pa.array(given, pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class _Known:
    """The newest loans, to be known again in a book: by their ids, or by all of their values."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._values: set[tuple[Value, ...]] = set()

    def add(self, batch: Batch) -> None:
        """Know these loans from now on."""
        self._ids.update(each for each in batch.ids or () if each is not None)
        self._values.update(batch.loans.rows())

    def others(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Which loans of a batch (n,) are none of those."""
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
    eligible: Eligible,
    progress: Progress,
) -> _Written:
    """Write every matured loan that can be read, the oldest first."""
    reader = InputReader(form.definition)
    late, days, callers, deciders = array("b"), array("i"), _Names(), _Names()
    unreadable, equal = 0, EqualRows()
    with snapshot(database) as connection, open_writer(path, form.schema) as writer:
        young = count_young(connection, share, eligible)
        progress(_READING, 0.0)
        passed_over = count_passed_over(connection, eligible)
        # Each question may take minutes, of many outcomes.
        progress(_READING, 0.0)
        for some in matured(connection, share, eligible):
            progress(_READING, 0.0)
            rows, labels, loan_ids = [], [], []
            for each in some:
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
    """Which of the older loans (cut,) equal none of the newest: of those that do a version that
    learns from them would know the outcome by which it is judged.
    """
    if groups is None:
        return np.ones(cut, dtype=np.bool_)
    return ~np.isin(groups[:cut], groups[cut:])


def _cut(late: npt.NDArray[np.int8]) -> int:
    """From which loan on the newest are held out, of loans from the oldest on (n,), 1 if late.

    A fifth is; more, where it holds fewer late loans than wanted, but what is learnt from keeps as
    many late ones as learning needs.
    """
    cut = len(late) - len(late) // _FIFTH
    places = np.flatnonzero(late)
    if len(places) < LEAST_LATE:
        return cut
    return min(cut, max(int(places[-_WANTED]), int(places[LEAST_LATE - 1]) + 1))


def _between(book: Book, definition: Definition, first: int, end: int) -> Iterator[Batch]:
    """The rows of a book from one on and before another, counted from 0."""
    done = 0
    for part in book.parts():
        low, high = max(first - done, 0), min(end - done, part.size)
        done += part.size
        if low < high:
            some = replace(
                part,
                records=part.records.slice(low, high - low),
                numbers=part.numbers[low:high],
            )
            yield read_loans(definition, some, label=True)


def _checked(book: Book, definition: Definition, progress: Progress) -> Iterator[Batch]:
    """A book's rows, each of which must be right, as in training."""
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True)
        if batch.problems:
            bad = book.bad_row(batch.problems[0])
            raise BookError(f"{bad}; `peerloan check` names every bad row")
        yield batch


def _labels(batch: Batch) -> Codes:
    assert batch.labels is not None  # noqa: S101  they were asked for
    return batch.labels


def _text(value: int | float | str | bool) -> str:
    """A label's value as a table holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(day: np.int32) -> str:
    return str(date_of(int(day)))
