"""The training table: a whole book in memory, validated, with its outcomes."""

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

# With fewer of either class, held-out figures are meaningless.
LEAST_LOANS = 20
_LEAST_ROWS = 100
# Most levels of a category to offer beside those in the definition.
_MOST_LEVELS = 100


class TrainingError(PeerLoanError, ValueError):
    """A book that can't be trained on, with the reason."""


@dataclass(frozen=True)
class Group:
    """A column for the fairness check: each loan's group as text (None if it is missing)."""

    column: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Table:
    """A training table in memory: checked loans, 1 for each late one, and their source.

    `without_outcome` loans of the book are left out, because their outcome is not known yet.
    """

    book: str
    loans: Loans
    late: Numbers
    trained_on: TrainedOn
    doubts: BookDoubts
    without_outcome: int = 0
    groups: tuple[Group, ...] = ()

    def lines(self) -> list[str]:
        """Describe the table: the meaning of late, the loans that are left out, and its doubts."""
        label = self.loans.definition.label
        late = int(self.late.sum())
        lines = [
            f"{self.book}: late is {show_value(label.late)} in {label.column}: {late:,} of "
            f"{plural(len(self.late), 'loan')} ({percent_of(late, len(self.late))})"
        ]
        if self.without_outcome:
            rows = plural(self.without_outcome, "row")
            lines.append(f"note: left out, because they have no outcome yet: {rows}")
        return lines + self.doubts.lines()


OnTable = Callable[[Table], None]


def read_table(
    book: Book, definition: Definition, progress: Progress, groups: Sequence[str] = ()
) -> Table:
    """Read a whole book with its labels; rows without an outcome are left out.

    A bad row raises TrainingError. `groups` are columns of the book, features or not, for the
    fairness check.
    """
    check_columns(definition, book, label=True)
    for name in groups:
        if name not in book.columns:
            raise TrainingError(f"{book.name}: no column {name!r} to group by")
    grouped: dict[str, list[str | None]] = {name: [] for name in groups}
    fingerprint, sample, without_outcome = Fingerprint(definition), False, 0
    doubts = DoubtCollector(book.name, definition)
    some_loans: list[Loans] = []
    labels: list[Codes] = []
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True, open_label=True)
        if batch.problems:
            bad = book.bad_row(batch.problems[0])
            raise TrainingError(f"{bad}; `peerloan check` names every bad row")
        doubts.add(batch)
        sample |= any((loan_id or "").startswith(ID_PREFIX) for loan_id in batch.ids or ())
        known = np.asarray(batch.labels) >= 0
        without_outcome += int(np.count_nonzero(~known))
        some_loans.append(batch.loans.take(known))
        labels.append(np.asarray(batch.labels)[known])
        fingerprint.update(some_loans[-1], labels[-1])
        for name, values in grouped.items():
            values += itertools.compress(read_column(part, name), known)
    late = np.concatenate(labels).astype(np.float64)
    _refuse_few(late, without_outcome, book.name)
    loans = join_loans(some_loans)
    _refuse_repeated(DuplicateRows.of(loans, late), late, book.name)
    seen = definition_as_seen(loans)
    return Table(
        Path(book.name).name,
        Loans(seen, loans.columns, loans.size),
        late,
        TrainedOn(
            "built-in sample" if sample else Path(book.name).name,
            fingerprint.hexdigest(),
            len(late),
            int(late.sum()),
            sample,
        ),
        doubts.found(),
        without_outcome,
        tuple(Group(name, tuple(values)) for name, values in grouped.items()),
    )


def _refuse_few(late: Numbers, without_outcome: int, book: str) -> None:
    """Raise TrainingError if there are too few loans, or too few of a class."""
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
    """Raise TrainingError if the rows of a class are few loans, each repeated many times."""
    if (groups := equal.groups()) is None:
        return
    count, kind = count_rarer(late, groups)
    if count < LEAST_LOANS:
        rows = int((late == (1 if kind == "late" else 0)).sum())
        raise TrainingError(
            f"{book}: expected at least {LEAST_LOANS} different loans that are {kind}, given "
            f"{count}: the other {rows - count:,} of their {rows:,} rows equal another one; "
            "train on the original table"
        )


def definition_as_seen(loans: Loans) -> Definition:
    """Extend the definition by this table's ranges of numbers and levels of categories."""
    fields = tuple(_as_seen(field, loans) for field in loans.definition.fields)
    return msgspec.structs.replace(loans.definition, fields=fields)


def _as_seen(field: Field, loans: Loans) -> Field:
    if field.is_number:
        given = loans.numbers(field.name)
        given = given[~np.isnan(given)]
        seen = (float(given.min()), float(given.max())) if len(given) else None
        return msgspec.structs.replace(field, seen=seen)
    if field.kind == "ordered":
        return field
    column = loans.texts(field.name)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    by_count = np.argsort(-counts, kind="stable").tolist()
    levels = tuple(column.levels[code] for code in by_count if counts[code])
    listed = set(field.levels)
    # The form offers common levels too, in a list that is short enough to read.
    offered = [
        level
        for level in levels[:_MOST_LEVELS]
        if level not in listed and not stands_for_missing(level)
    ]
    return msgspec.structs.replace(field, levels=(*field.levels, *offered), seen=levels)
