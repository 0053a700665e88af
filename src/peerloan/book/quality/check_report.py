"""The check of a whole book: every wrong value, and what is unusual without being wrong."""

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
from peerloan.book.validation import Batch, check_columns, read_loans
from peerloan.loan import Definition, Problem
from peerloan.loan.text import counted, share_of
from peerloan.stats.arrays import Codes

# Problems of a group that are shown one by one.
_EXAMPLES = 20
# Ranges of rows that are kept of a group: a book may have a wrong value in every second row.
MOST_RANGES = 1_000_000


@dataclass(frozen=True)
class Group:
    """The problems of one field that expected the same.

    The first 20 one by one; their rows as ranges (first, last), of more than about a million ranges
    the first ones.
    """

    field: str
    expected: str
    count: int
    examples: list[Problem]
    ranges: list[tuple[int, int]]


@dataclass(frozen=True)
class Report:
    """What the check of a book found. `missing` counts by field; `late`, and `outcomes`, the loans
    whose outcome is known, are None without label.
    """

    book: str
    model: str
    rows: int
    bad_rows: int
    late: int | None
    outcomes: int | None
    missing: dict[str, int]
    groups: list[Group]
    notes: list[str]
    doubted: BookDoubts

    @property
    def doubts(self) -> list[str]:
        """What is unusual about the book, in words."""
        return self.doubted.texts

    @property
    def ok(self) -> bool:
        """Whether no row has a problem; notes and doubts are none."""
        return not self.groups

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        lines = [f"{self.book}: {counted(self.rows, 'loan')}{self._outcomes()}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [
            f"missing: {name}: {count:,} ({share_of(count, self.rows)})"
            for name, count in self.missing.items()
            if count
        ]
        lines += self.doubted.lines()
        for group in self.groups:
            rows = counted(group.count, "row")
            lines.append(f"{group.field}: {rows}: expected {group.expected}")
            lines += [f"  row {p.loan}: {p.given}" for p in group.examples]
            if rest := _after(group.ranges, group.examples[-1].loan or 0):
                listed = sum(last - first + 1 for first, last in group.ranges)
                lines.append(f"  and {show_ranges(rest, group.count - listed)}")
        if self.ok:
            lines.append("no problems")
        else:
            verb = "has" if self.bad_rows == 1 else "have"
            rows = counted(self.rows, "row")
            lines.append(f"{self.bad_rows:,} of {rows} {verb} problems")
        return lines

    def _outcomes(self) -> str:
        if self.late is None or self.outcomes is None:
            return ""
        known = "" if self.outcomes == self.rows else f", {self.outcomes:,} with a known outcome"
        return f"{known}, {self.late:,} late ({share_of(self.late, self.outcomes)})"

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, everything in it."""
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
        } | self.doubted.to_json()


def check_book(
    book: Book,
    definition: Definition,
    progress: Progress | None = None,
    label: bool | None = None,
    usual: UsualRanges | None = None,
) -> Report:
    """Check every row of a book; raises BookError if its columns or files can't be used.

    `label`: whether the label's column is checked; by default if it is there. An empty label is no
    fault: the outcome is not known yet. `usual`: as `DoubtCollector` takes it. Memory grows with
    the number of separate wrong rows (up to a million of a kind), not with the book (but for 8
    bytes of each of the first 20 million rows, and some 60 of each loan's id).
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
    # In the definition's order, whichever came first; whole rows before all.
    order = ["(row)", *definition.names, definition.label.column, definition.roles.id]
    found = sorted(groups.values(), key=lambda group: order.index(group.field))
    return Report(
        book=book.name,
        model=definition.model,
        rows=rows,
        bad_rows=bad_rows,
        late=late if label else None,
        outcomes=outcomes if label else None,
        missing=dict(missing),
        groups=[group.closed() for group in found],
        notes=notes,
        doubted=doubts.found(),
    )


def _add_problems(groups: dict[tuple[str, str], _Group], batch: Batch) -> None:
    def group_of(field: str, expected: str) -> _Group:
        return groups.setdefault((field, expected), _Group(field, expected))

    if lost := batch.part.problems:
        numbers = np.array([problem.loan for problem in lost], dtype=np.int64)
        group = group_of(lost[0].field, lost[0].expected)
        group.add(numbers, lambda limit: [problem.given for problem in lost[:limit]])
    for fault in batch.faults:
        group_of(fault.field, fault.expected).add(batch.part.numbers[fault.places], fault.given)


class _Group:
    """A group while the book is read."""

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

    def closed(self) -> Group:
        spans = spans_of(np.concatenate(self._spans))
        ranges = [(first, last) for first, last in spans.tolist()]
        return Group(self.field, self._expected, self._count, self._examples, ranges)


def _after(ranges: list[tuple[int, int]], row: int) -> list[tuple[int, int]]:
    """What of these ranges lies behind a row."""
    return [(max(first, row + 1), last) for first, last in ranges if last > row]
