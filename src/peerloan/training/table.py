"""The training table: a validated book in memory, with its outcomes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from peerloan.book import (
    Book,
    BookDoubts,
    DoubtCollector,
    DuplicateRows,
    Fingerprint,
    check_columns,
    join_loans,
    read_column,
    read_loans,
)
from peerloan.errors import PeerLoanError
from peerloan.formatting import percent_of, plural, show_value
from peerloan.loan import Definition, Field, Loans
from peerloan.loan.text import stands_for_missing
from peerloan.registry import TrainedOn
from peerloan.sample_data import ID_PREFIX
from peerloan.stats.arrays import Codes, Numbers
from peerloan.training.folds import count_rarer
from peerloan.training.search import Progress

# With fewer late loans, or fewer on time, held-out figures are meaningless.
LEAST_LOANS = 20
_LEAST_ROWS = 100
# The form offers at most this many levels besides those in the definition.
_MOST_LEVELS = 100


class TrainingError(PeerLoanError, ValueError):
    """A book that training can't use, with the reason."""


@dataclass(frozen=True)
class Group:
    """A column for the fairness check: the group of each loan (n,), None if it is missing."""

    column: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Table:
    """A training table in memory: validated loans, their outcomes, and their source.

    `late` (n,) is 1 for each late loan. `without_outcome` counts the rows of the book that were
    left out, because their outcome is not known yet.
    """

    book: str
    loans: Loans
    late: Numbers
    trained_on: TrainedOn
    doubts: BookDoubts
    without_outcome: int = 0
    groups: tuple[Group, ...] = ()

    def lines(self) -> list[str]:
        """Describe the table in lines of text: its late rate, the rows left out, and its doubts."""
        label = self.loans.definition.label
        late = int(self.late.sum())
        lines = [
            f"{self.book}: late is {show_value(label.late)} in {label.column}: {late:,} of "
            f"{plural(len(self.late), 'loan')} ({percent_of(late, len(self.late))})"
        ]
        if self.without_outcome:
            rows = plural(self.without_outcome, "row")
            lines.append(f"note: {rows} left out: no outcome yet")
        return lines + self.doubts.lines()


OnTable = Callable[[Table], None]


def read_table(
    book: Book, definition: Definition, progress: Progress, groups: Sequence[str] = ()
) -> Table:
    """Read a whole book with its labels; rows without an outcome are left out.

    `groups` are columns of the book for the fairness check; they may be features. Raises
    TrainingError if a row is invalid, a column of `groups` is missing, or there are too few loans.
    """
    check_columns(definition, book, label=True)
    for name in groups:
        if name not in book.columns:
            raise TrainingError(f"{book.name}: no column {name!r} to group by")
    grouped: dict[str, list[str | None]] = {name: [] for name in groups}
    fingerprint = Fingerprint(definition)
    is_sample, without_outcome = False, 0
    doubts = DoubtCollector(book.name, definition)
    parts: list[Loans] = []
    labels: list[Codes] = []
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True, open_label=True)
        if batch.problems:
            first_fault = book.bad_row(batch.problems[0])
            raise TrainingError(f"{first_fault}; `peerloan check` names every bad row")
        doubts.add(batch)
        is_sample |= any((loan_id or "").startswith(ID_PREFIX) for loan_id in batch.ids or ())
        has_outcome = np.asarray(batch.labels) >= 0
        without_outcome += int(np.count_nonzero(~has_outcome))
        parts.append(batch.loans.take(has_outcome))
        labels.append(np.asarray(batch.labels)[has_outcome])
        fingerprint.update(parts[-1], labels[-1])
        for name, values in grouped.items():
            values += itertools.compress(read_column(part, name), has_outcome)
    late = np.concatenate(labels).astype(np.float64)
    _refuse_few(late, without_outcome, book.name)
    loans = join_loans(parts)
    _refuse_repeated(DuplicateRows.of(loans, late), late, book.name)
    seen = definition_as_seen(loans)
    return Table(
        Path(book.name).name,
        Loans(seen, loans.columns, loans.size),
        late,
        TrainedOn(
            "built-in sample" if is_sample else Path(book.name).name,
            fingerprint.hexdigest(),
            len(late),
            int(late.sum()),
            is_sample,
        ),
        doubts.result(),
        without_outcome,
        tuple(Group(name, tuple(values)) for name, values in grouped.items()),
    )


def _refuse_few(late: Numbers, without_outcome: int, book: str) -> None:
    """Raise TrainingError if there are too few loans, too few late ones, or too few on time."""
    left_out = f", and {without_outcome} without an outcome yet" if without_outcome else ""
    if len(late) < _LEAST_ROWS:
        raise TrainingError(
            f"{book}: expected at least {_LEAST_ROWS} loans, given {len(late)}{left_out}"
        )
    for name, count in (("late", late.sum()), ("on time", len(late) - late.sum())):
        if count < LEAST_LOANS:
            raise TrainingError(
                f"{book}: expected at least {LEAST_LOANS} loans that are {name}, "
                f"given {int(count)} of {len(late)}{left_out}"
            )


def _refuse_repeated(equal: DuplicateRows, late: Numbers, book: str) -> None:
    """Raise TrainingError if the late rows, or those on time, are few loans repeated many times."""
    if (groups := equal.groups()) is None:
        return
    count, kind = count_rarer(late, groups)
    if count < LEAST_LOANS:
        rows = int((late == (1 if kind == "late" else 0)).sum())
        raise TrainingError(
            f"{book}: expected at least {LEAST_LOANS} different loans that are {kind}, given "
            f"{count}: the other {rows - count:,} of their {rows:,} rows equal another row; "
            "train on the original table"
        )


def definition_as_seen(loans: Loans) -> Definition:
    """Add this table's ranges of numbers and levels of categories to the definition."""
    fields = tuple(_as_seen(field, loans) for field in loans.definition.fields)
    return msgspec.structs.replace(loans.definition, fields=fields)


def _as_seen(field: Field, loans: Loans) -> Field:
    if field.is_number:
        numbers = loans.numbers(field.name)
        numbers = numbers[~np.isnan(numbers)]
        seen = (float(numbers.min()), float(numbers.max())) if len(numbers) else None
        return msgspec.structs.replace(field, seen=seen)
    if field.kind == "ordered":
        return field
    column = loans.texts(field.name)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    by_count = np.argsort(-counts, kind="stable").tolist()
    levels = tuple(column.levels[code] for code in by_count if counts[code])
    listed = set(field.levels)
    # The form offers the most common levels too, in a list that is short enough to read.
    offered = [
        level
        for level in levels[:_MOST_LEVELS]
        if level not in listed and not stands_for_missing(level)
    ]
    return msgspec.structs.replace(field, levels=(*field.levels, *offered), seen=levels)
