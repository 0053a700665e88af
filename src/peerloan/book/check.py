"""The check of a whole book: every wrong value, and what is unusual without being wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peerloan.book.columns import Batch, check_columns, read_loans
from peerloan.book.equal_rows import EqualRows
from peerloan.book.parts import Progress
from peerloan.book.source import Book
from peerloan.loan import Codes, Definition, Field, Numbers, Problem, TextColumn
from peerloan.loan.checks import doubt

# Problems of a group that are shown one by one, unseen levels that are named, ranges on a line.
_EXAMPLES = 20
_LEVELS = 20
_RANGES = 200
# Different unseen texts that are counted one by one; there may be as many as rows.
_COUNTED = 10_000


@dataclass(frozen=True)
class Group:
    """The problems of one field that expected the same.

    The first 20 one by one; all of their rows as ranges (first, last).
    """

    field: str
    expected: str
    count: int
    examples: list[Problem]
    ranges: list[tuple[int, int]]


@dataclass(frozen=True)
class Report:
    """What the check of a book found. `missing` counts by field; `late` is None without label."""

    book: str
    model: str
    rows: int
    bad_rows: int
    late: int | None
    missing: dict[str, int]
    groups: list[Group]
    notes: list[str]
    doubts: list[str]

    @property
    def ok(self) -> bool:
        """Whether no row has a problem; notes and doubts are none."""
        return not self.groups

    def lines(self) -> list[str]:
        """The report as lines of plain text."""
        late = "" if self.late is None else f", {self.late:,} late ({_share(self.late, self.rows)})"
        lines = [f"{self.book}: {self.rows:,} loans{late}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [
            f"missing: {name}: {count:,} ({_share(count, self.rows)})"
            for name, count in self.missing.items()
            if count
        ]
        lines += [f"doubt: {text}" for text in self.doubts]
        for group in self.groups:
            rows = "1 row" if group.count == 1 else f"{group.count:,} rows"
            lines.append(f"{group.field}: {rows}: expected {group.expected}")
            lines += [f"  row {p.loan}: {p.given}" for p in group.examples]
            if rest := _after(group.ranges, group.examples[-1].loan or 0):
                lines.append(f"  and {_show_ranges(rest)}")
        if self.ok:
            lines.append("no problems")
        else:
            lines.append(f"{self.bad_rows:,} of {self.rows:,} rows have problems")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, everything in it."""
        return {
            "book": self.book,
            "model": self.model,
            "ok": self.ok,
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "late": self.late,
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
            "doubts": list(self.doubts),
        }


def check_book(
    book: Book,
    definition: Definition,
    progress: Progress | None = None,
    label: bool | None = None,
) -> Report:
    """Check every row of a book; raises BookError if its columns or files can't be used.

    `label`: whether the label's column is checked; by default if it is there. Memory grows with
    the number of separate wrong rows, not with the book (but for 8 bytes of each row,
    and some 60 of each loan's id).
    """
    if label is None:
        label = definition.label.column in book.columns
    notes = check_columns(definition, book, label=label)
    columns: dict[str, _Numbers | _Texts] = {
        field.name: _Numbers(field) if field.is_number else _Texts(field)
        for field in definition.fields
    }
    groups: dict[tuple[str, str], _Group] = {}
    ids = _Ids(definition.roles.id or "")
    equal = EqualRows()
    rows = bad_rows = late = 0
    for part in book.parts(progress):
        batch = read_loans(definition, part, label=label)
        rows += part.size
        bad_rows += len(part.problems) + int(np.count_nonzero(~batch.good))
        _add_problems(groups, batch)
        equal.add(batch.loans, batch.labels)
        for name, column in batch.every_loan.columns.items():
            columns[name].add(column, batch.missing[name])
        if batch.every_label is not None:
            late += int(np.count_nonzero(batch.every_label == 1))
        if batch.every_id is not None:
            ids.add(batch.every_id, part.numbers)
    doubts = [*ids.doubts(), *equal.doubts()]
    # In the definition's order, whichever came first; whole rows before all.
    order = ["(row)", *definition.names, definition.label.column, definition.roles.id]
    found = sorted(groups.values(), key=lambda group: order.index(group.field))
    return Report(
        book=book.name,
        model=definition.model,
        rows=rows,
        bad_rows=bad_rows,
        late=late if label else None,
        missing={name: column.missing for name, column in columns.items()},
        groups=[group.closed() for group in found],
        notes=notes,
        doubts=[*doubts, *(text for column in columns.values() for text in column.doubts())],
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

    def add(self, rows: Codes, given: Callable[[int], list[str]]) -> None:
        self._count += len(rows)
        if room := _EXAMPLES - len(self._examples):
            self._examples += [
                Problem(row, self.field, self._expected, cell)
                for row, cell in zip(rows[:room].tolist(), given(room), strict=True)
            ]
        self._spans.append(_spans(np.stack([rows, rows], axis=1)))

    def closed(self) -> Group:
        spans = _spans(np.concatenate(self._spans))
        ranges = [(first, last) for first, last in spans.tolist()]
        return Group(self.field, self._expected, self._count, self._examples, ranges)


def _spans(spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ascending ranges (first, last), one a row, with those joined that touch."""
    starts = np.flatnonzero(np.append(True, spans[1:, 0] > spans[:-1, 1] + 1))
    ends = np.append(starts[1:] - 1, len(spans) - 1)
    return np.stack([spans[starts, 0], spans[ends, 1]], axis=1)


class _Numbers:
    """A number's column while the book is read."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.missing = self._rows = 0
        self._count = self._below = self._above = 0
        self._lowest, self._highest = np.inf, -np.inf

    def add(self, column: Numbers | TextColumn, missing: int) -> None:
        assert not isinstance(column, TextColumn)  # noqa: S101  the definition says so
        self.missing += missing
        self._rows += len(column)
        given = column[~np.isnan(column)]
        if not len(given):
            return
        self._count += len(given)
        self._lowest = min(self._lowest, float(given.min()))
        self._highest = max(self._highest, float(given.max()))
        if (seen := self._field.seen_range) is not None:
            # 0.053099999999999994, as tables hold it, is not below 0.0531.
            slack = 1e-9 * max(abs(seen[0]), abs(seen[1]))
            self._below += int(np.count_nonzero(given < seen[0] - slack))
            self._above += int(np.count_nonzero(given > seen[1] + slack))

    def doubts(self) -> Iterable[str]:
        field, show = self._field, self._field.show
        if not self._count:
            if 0 < self._rows == self.missing:
                yield f"{field.name}: no row has a value"
            return
        if self._lowest == self._highest and not self.missing and self._count > 1:
            yield f"{field.name}: every row has the value {show(self._lowest)}"
        outside = self._below + self._above
        if not outside or field.seen_range is None:
            return
        seen = f"the range seen in training, {' to '.join(map(show, field.seen_range))}"
        held = f"the book has {show(self._lowest)} to {show(self._highest)}"
        # The median lies beyond an end of the range if more than half of the values do.
        for count, side in ((self._below, "below"), (self._above, "above")):
            if count * 2 > self._count:
                hint = ""
                if field.percent and side == "above":
                    hint = "; is it given in percent? Expected 0.1306 for 13.06 %"
                yield f"{field.name}: the median is {side} {seen} ({held}){hint}"
                return
        yield f"{field.name}: {_share(outside, self._count)} is outside {seen} ({held})"


class _Texts:
    """A category's column while the book is read."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.missing = self._rows = 0
        self._counts: Counter[str] = Counter()
        self._uncounted = 0

    def add(self, column: Numbers | TextColumn, missing: int) -> None:
        assert isinstance(column, TextColumn)  # noqa: S101  the definition says so
        self.missing += missing
        self._rows += len(column.codes)
        counts = np.bincount(column.codes + 1, minlength=len(column.levels) + 1)[1:]
        for level, count in zip(column.levels, counts.tolist(), strict=True):
            if level in self._counts or len(self._counts) < _COUNTED:
                self._counts[level] += count
            else:
                self._uncounted += count

    def doubts(self) -> Iterable[str]:
        name = self._field.name
        if not self._counts:
            if 0 < self._rows == self.missing:
                yield f"{name}: no row has a value"
            return
        if len(self._counts) == 1 and not self.missing and self._counts.total() > 1:
            yield f"{name}: every row has the value {next(iter(self._counts))!r}"
        if not self._field.seen_levels:
            return
        unseen = [
            (text, count)
            for level, count in self._counts.most_common()
            if (text := doubt(self._field, level))
        ]
        for text, count in unseen[:_LEVELS]:
            yield f"{text}: {count:,} row{'' if count == 1 else 's'}"
        if rest := sum(count for _, count in unseen[_LEVELS:]) + self._uncounted:
            yield f"{name}: other values that were not seen in training: {rest:,} rows"


class _Ids:
    """The loans' ids while the book is read, as hashes: a book may be larger than memory."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hashes: list[npt.NDArray[np.int64]] = []
        self._rows: list[Codes] = []

    def add(self, ids: TextColumn, rows: Codes) -> None:
        hashes = np.array([hash(level) for level in ids.levels] or [0], dtype=np.int64)
        given = ids.codes >= 0
        self._hashes.append(hashes[ids.codes[given]])
        self._rows.append(rows[given])

    def doubts(self) -> Iterable[str]:
        if not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        _, firsts = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), dtype=np.bool_)
        repeated[firsts] = False
        if count := int(np.count_nonzero(repeated)):
            rows = np.concatenate(self._rows)[repeated]
            spans = _spans(np.stack([rows, rows], axis=1))
            shown = _show_ranges([(first, last) for first, last in spans.tolist()])
            noun = "loan has the id" if count == 1 else "loans have the id"
            yield f"{self._name}: {count:,} {noun} of an earlier one: {shown}"


def _after(ranges: list[tuple[int, int]], row: int) -> list[tuple[int, int]]:
    """What of these ranges lies behind a row."""
    return [(max(first, row + 1), last) for first, last in ranges if last > row]


def _show_ranges(ranges: list[tuple[int, int]]) -> str:
    """Rows in words: 'row 5', 'rows 5, 7, 30–111068'."""
    shown = ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in ranges[:_RANGES])
    if rest := sum(last - first + 1 for first, last in ranges[_RANGES:]):
        shown += f" and {rest:,} more rows"
    return f"row{'' if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else 's'} {shown}"


def _share(count: int, whole: int) -> str:
    """A share in percent, with enough decimals to see a small one."""
    percent = 100 * count / max(whole, 1)
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"
