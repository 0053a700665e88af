"""Check a book and report every wrong value, and doubts about unusual ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peerloan.book.parts import Progress
from peerloan.book.quality.doubts import BookDoubts, DoubtCollector, UsualRanges
from peerloan.book.quality.row_ranges import show_ranges, spans_of
from peerloan.book.reader import Book
from peerloan.book.validation import CheckedPart, check_columns, read_loans
from peerloan.formatting import agree, percent_of, plural
from peerloan.loan import Definition, Problem
from peerloan.stats.arrays import Codes

# Problems of a group that are listed one by one.
_EXAMPLES = 20
# At most so many row ranges are stored for a group: every second row may have a wrong value.
MOST_RANGES = 1_000_000


@dataclass(frozen=True)
class ProblemGroup:
    """The problems of one field that have the same `expected`.

    `examples` are the first 20 problems. `ranges` are the rows of all of them as (first, last), at
    most about a million ranges.
    """

    field: str
    expected: str
    count: int
    examples: list[Problem]
    ranges: list[tuple[int, int]]


@dataclass(frozen=True)
class BookReport:
    """The result of checking a book.

    `missing` counts missing values by field. `outcomes` counts the loans with a known outcome,
    `late` the late ones of these; both are None if the label was not read.
    """

    book: str
    model: str
    rows: int
    bad_rows: int
    late: int | None
    outcomes: int | None
    missing: dict[str, int]
    groups: list[ProblemGroup]
    notes: list[str]
    book_doubts: BookDoubts

    @property
    def doubts(self) -> list[str]:
        """The doubts about the book, as sentences."""
        return self.book_doubts.texts

    @property
    def ok(self) -> bool:
        """Whether no row has a problem; notes and doubts don't count."""
        return not self.groups

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        lines = [f"{self.book}: {plural(self.rows, 'loan')}{self._outcomes()}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [
            f"missing: {name}: {count:,} ({percent_of(count, self.rows)})"
            for name, count in self.missing.items()
            if count
        ]
        lines += self.book_doubts.lines()
        for group in self.groups:
            rows = plural(group.count, "row")
            lines.append(f"{group.field}: {rows}: expected {group.expected}")
            lines += [f"  row {p.loan}: {p.given}" for p in group.examples]
            if rest := _ranges_after(group.ranges, group.examples[-1].loan or 0):
                listed = sum(last - first + 1 for first, last in group.ranges)
                lines.append(f"  and {show_ranges(rest, group.count - listed)}")
        if self.ok:
            lines.append("no problems")
        else:
            verb = agree(self.bad_rows, "has", "have")
            rows = plural(self.rows, "row")
            lines.append(f"{self.bad_rows:,} of {rows} {verb} problems")
        return lines

    def _outcomes(self) -> str:
        if self.late is None or self.outcomes is None:
            return ""
        suffix = "" if self.outcomes == self.rows else f", {self.outcomes:,} with a known outcome"
        return f"{suffix}, {self.late:,} late ({percent_of(self.late, self.outcomes)})"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON data."""
        return {
            "book": self.book,
            "model": self.model,
            "ok": self.ok,
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "late": self.late,
            "outcomes": self.outcomes,
            "missing": dict(self.missing),
            "problems": [
                {
                    "field": group.field,
                    "expected": group.expected,
                    "count": group.count,
                    "examples": [{"row": p.loan, "given": p.given} for p in group.examples],
                    "rows": [list(span) for span in group.ranges],
                }
                for group in self.groups
            ],
            "notes": list(self.notes),
        } | self.book_doubts.to_json()


def check_book(
    book: Book,
    definition: Definition,
    progress: Progress | None = None,
    label: bool | None = None,
    usual: UsualRanges | None = None,
) -> BookReport:
    """Check every row of a book; raises BookError if its columns or files can't be used.

    `label`: whether to check the label's column; by default if the book has it. An empty label is
    no problem: the outcome is not known yet. `usual`: see `DoubtCollector`.

    Memory: up to a million row ranges per kind of problem, 8 bytes for each of the first 20 million
    rows, and about 60 bytes per loan id.
    """
    if label is None:
        label = definition.label.column in book.columns
    notes = check_columns(definition, book, label=label)
    missing: Counter[str] = Counter(dict.fromkeys(definition.names, 0))
    groups: dict[tuple[str, str], _Group] = {}
    doubts = DoubtCollector(book.name, definition, usual=usual)
    rows = bad_rows = late = outcomes = 0
    for part in book.parts(progress):
        batch = read_loans(definition, part, label=label, open_label=True)
        rows += part.size
        bad_rows += len(part.problems) + int(np.count_nonzero(~batch.good))
        _add_problems(groups, batch)
        missing.update(batch.missing)
        doubts.add(batch)
        if batch.every_label is not None:
            late += int(np.count_nonzero(batch.every_label == 1))
            outcomes += int(np.count_nonzero(batch.every_label >= 0))
    # Broken rows first, then the fields in the definition's order.
    order = ["(row)", *definition.names, definition.label.column, definition.roles.id]
    ordered = sorted(groups.values(), key=lambda group: order.index(group.field))
    return BookReport(
        book=book.name,
        model=definition.model,
        rows=rows,
        bad_rows=bad_rows,
        late=late if label else None,
        outcomes=outcomes if label else None,
        missing=dict(missing),
        groups=[group.finished() for group in ordered],
        notes=notes,
        book_doubts=doubts.result(),
    )


def _add_problems(groups: dict[tuple[str, str], _Group], batch: CheckedPart) -> None:
    """Add a part's broken rows and wrong values to their groups."""

    def group_of(field: str, expected: str) -> _Group:
        return groups.setdefault((field, expected), _Group(field, expected))

    if broken := batch.part.problems:
        numbers = np.array([problem.loan for problem in broken], dtype=np.int64)
        group = group_of(broken[0].field, broken[0].expected)
        group.add(numbers, lambda limit: [problem.given for problem in broken[:limit]])
    for fault in batch.faults:
        group_of(fault.field, fault.expected).add(batch.part.numbers[fault.places], fault.given)


class _Group:
    """Collects the problems of a group while the book is read."""

    def __init__(self, field: str, expected: str) -> None:
        self.field, self._expected = field, expected
        self._count = 0
        self._examples: list[Problem] = []
        self._spans: list[npt.NDArray[np.int64]] = []
        self._ranges = 0

    def add(self, rows: Codes, given: Callable[[int], list[str]]) -> None:
        self._count += len(rows)
        if room := _EXAMPLES - len(self._examples):
            self._examples += [
                Problem(row, self.field, self._expected, cell)
                for row, cell in zip(rows[:room].tolist(), given(room), strict=True)
            ]
        if self._ranges < MOST_RANGES:
            self._spans.append(spans_of(np.stack([rows, rows], axis=1)))
            self._ranges += len(self._spans[-1])

    def finished(self) -> ProblemGroup:
        spans = spans_of(np.concatenate(self._spans))
        ranges = [(first, last) for first, last in spans.tolist()]
        return ProblemGroup(self.field, self._expected, self._count, self._examples, ranges)


def _ranges_after(ranges: list[tuple[int, int]], row: int) -> list[tuple[int, int]]:
    """The parts of these ranges after a row."""
    return [(max(first, row + 1), last) for first, last in ranges if last > row]
