"""What is unusual in a book without being wrong: collected while its parts are read.

A collector takes every part and says in the end what it doubts. `check` collects, and so do
`score`, `monitor`, `train` and `explore` while they do their own work: one pass, the same rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from peerloan.book.equal_rows import EqualRows
from peerloan.book.parts import BookError
from peerloan.book.quality.missing_codes import Extremes, MissingCodes
from peerloan.book.quality.row_ranges import ranges_of, show_ranges
from peerloan.book.quality.thousands_separators import Thousands
from peerloan.book.validation import Batch
from peerloan.loan import MAX_RUN_COMPARISONS, Definition, Field, Label, Suggestions
from peerloan.loan.decoding import unusual_rows
from peerloan.loan.text import counted, share_of, show_given, show_number, stands_for_missing
from peerloan.loan.validation import unusual_value
from peerloan.stats.arrays import Codes

# Unseen levels that are named.
_LEVELS = 20
# Different unseen texts that are counted one by one; there may be as many as rows.
_COUNTED = 10_000
# In fewer rows a value may be the same in each, and most of the loans be late, by chance.
_FEW, _FEW_TO_SCORE = 10, 30
# So many values beyond what 95 % of the loans trained on do not exceed are no drift.
_NEARLY_ALL = 0.95
# Rows that are compared with one another, 8 bytes each while they are collected.
MOST_COMPARED = 20_000_000
# A doubt about fewer rows than this share is said, but refuses no book.
GRAVE_SHARE = 0.01
_MISSING = "does it stand for missing? Then leave the cell empty"


UsualRanges = Mapping[str, tuple[float, float]]


class Doubt(NamedTuple):
    """A doubt in words, and how many rows it is about."""

    text: str
    rows: int


class Collector(Protocol):
    """Collects what it doubts of a book, part by part."""

    def add(self, batch: Batch) -> None:
        """Take in the next part."""
        ...

    def doubts(self) -> Iterable[Doubt]:
        """What is doubted of all parts."""
        ...


@dataclass(frozen=True)
class BookDoubts:
    """The doubts about a book. `rows_with_warnings` counts the good rows that hold a value outside
    the range seen in training or an unseen level: the API answers such a loan with `warnings`.
    """

    book: str
    rows: int
    doubts: tuple[Doubt, ...] = ()
    rows_with_warnings: int = 0

    @property
    def texts(self) -> list[str]:
        """Each doubt in words."""
        return [each.text for each in self.doubts]

    @property
    def grave(self) -> list[str]:
        """Those about at least one row in a hundred, which `--strict-doubts` refuses."""
        return [each.text for each in self.doubts if each.rows >= GRAVE_SHARE * self.rows]

    def refuse(self, undone: str = "nothing was written") -> None:
        """Raise BookError if there are grave doubts, which says them all."""
        if grave := self.grave:
            raise BookError(
                f"{self.book}: {counted(len(grave), 'doubt')} (--strict-doubts: {undone}): "
                f"{'; '.join(grave)}"
            )

    def lines(self) -> list[str]:
        """The doubts, and how many rows have warnings, as lines of plain text."""
        lines = [f"doubt: {text}" for text in self.texts]
        if self.rows_with_warnings:
            rows = counted(self.rows_with_warnings, "row")
            verb = "has" if self.rows_with_warnings == 1 else "have"
            lines.append(
                f"{rows} of {self.rows:,} {verb} a value that is outside the range or levels seen "
                "in training"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The doubts as plain data."""
        return {"doubts": self.texts, "rows_with_warnings": self.rows_with_warnings}


class DoubtCollector:
    """Collects the doubts about a book of a definition.

    `scoring`: the definition is that of the version that scores the book. What it was trained on
    was doubted then, and is not doubted again. `usual` gives, by field, the 5 % and the 95 %
    quantile of the loans that a version was trained on, where these are known.
    """

    def __init__(
        self,
        book: str,
        definition: Definition,
        scoring: bool = False,
        usual: UsualRanges | None = None,
    ) -> None:
        usual = usual or {}
        self._book = book
        self._rows = self._unusual = 0
        self._collectors: list[Collector] = [
            _Labels(definition.label),
            _Ids(definition.roles.id or ""),
            *([] if scoring else [_EqualRows()]),
            *(
                _Numbers(field, scoring, usual.get(field.name))
                if field.is_number
                else _Texts(field, scoring)
                for field in definition.fields
            ),
        ]

    def add(self, batch: Batch) -> None:
        """Take in the next part."""
        self._rows += batch.part.size
        self._unusual += int(np.count_nonzero(unusual_rows(batch.loans)))
        for collector in self._collectors:
            collector.add(batch)

    def found(self) -> BookDoubts:
        """The doubts about all parts."""
        doubts = tuple(doubt for each in self._collectors for doubt in each.doubts())
        return BookDoubts(self._book, self._rows, doubts, self._unusual)


class _Labels:
    """Whether most loans are late, which means that the label is the wrong way round."""

    def __init__(self, label: Label) -> None:
        self._label = label
        self._late = self._known = 0

    def add(self, batch: Batch) -> None:
        if batch.every_label is not None:
            self._late += int(np.count_nonzero(batch.every_label == 1))
            self._known += int(np.count_nonzero(batch.every_label >= 0))

    def doubts(self) -> Iterator[Doubt]:
        if self._known >= _FEW and 2 * self._late > self._known:
            label = self._label
            yield Doubt(
                f"{label.column}: {self._late:,} of {counted(self._known, 'loan')} "
                f"({share_of(self._late, self._known)}) are late, which is the value "
                f"{show_given(label.late)}; if that means on time, exchange late and on_time in "
                "the definition",
                self._late,
            )


class _EqualRows:
    """Whether many rows equal an earlier one; of a huge book, many of its first rows."""

    def __init__(self) -> None:
        self._rows = EqualRows()
        self._count = 0

    def add(self, batch: Batch) -> None:
        if self._count < MOST_COMPARED:
            self._rows.add(batch.loans, None if batch.labels is None else batch.labels == 1)
        self._count += batch.loans.size

    def doubts(self) -> Iterator[Doubt]:
        if (repeated := self._rows.repeated()) is not None:
            text = repeated.sentence()
            if repeated.rows < self._count:
                text = f"of the first {repeated.rows:,} rows, {text}"
            yield Doubt(text, repeated.repeated)


class _Numbers:
    """A number's column."""

    def __init__(self, field: Field, scoring: bool, usual: tuple[float, float] | None) -> None:
        self._field, self._scoring, self._usual = field, scoring, usual
        self._low = self._high = 0
        self._missing = self._rows = 0
        self._count = self._below = self._above = 0
        self._extremes = Extremes()
        self._thousands = Thousands()
        self._lowest, self._highest = np.inf, -np.inf

    def add(self, batch: Batch) -> None:
        name = self._field.name
        column = batch.every_loan.numbers(name)
        self._missing += batch.missing[name]
        self._rows += len(column)
        given = column[~np.isnan(column)]
        if not len(given):
            return
        self._count += len(given)
        self._lowest = min(self._lowest, float(given.min()))
        self._highest = max(self._highest, float(given.max()))
        self._extremes.add(given)
        if name in batch.part.records.schema.names:
            self._thousands.add(batch.part.records.column(name))
        if (seen := self._field.seen_range_rounded) is not None:
            self._below += int(np.count_nonzero(given < seen[0]))
            self._above += int(np.count_nonzero(given > seen[1]))
        if self._usual is not None:
            self._low += int(np.count_nonzero(given < self._usual[0]))
            self._high += int(np.count_nonzero(given > self._usual[1]))

    def doubts(self) -> Iterator[Doubt]:
        field = self._field
        if not self._count:
            if 0 < self._rows == self._missing:
                yield Doubt(f"{field.name}: no row has a value", self._rows)
            return
        few = _FEW_TO_SCORE if self._scoring else _FEW
        if self._lowest == self._highest and not self._missing and self._count >= few:
            yield Doubt(
                f"{field.name}: every row has the value {field.show(self._lowest)}", self._rows
            )
        below, above = self._below, self._above
        if (codes := self._codes()) is not None:
            yield _of_codes(field, codes, self._rows)
            # They are doubted already.
            low, high = field.seen_range_rounded or (-np.inf, np.inf)
            below -= sum(rows for value, rows in codes.codes if value < low)
            above -= sum(rows for value, rows in codes.codes if value > high)
        yield from self._outside(below, above)

    def _codes(self) -> MissingCodes | None:
        codes, seen = self._extremes.missing_codes(), self._field.seen_range
        if codes is None or not self._scoring or seen is None:
            return codes
        unseen = [each for each in codes.codes if not seen[0] <= each.value <= seen[1]]
        return codes._replace(codes=unseen) if unseen else None

    def _outside(self, below: int, above: int) -> Iterator[Doubt]:
        field, show = self._field, self._field.show
        seen, median = "", ""
        if field.seen_range is not None:
            seen = f"the range seen in training, {' to '.join(map(show, field.seen_range))}"
            # The median lies beyond an end if more than half of the values do.
            median = "below" if 2 * below > self._count else ""
            median = "above" if 2 * above > self._count else median
        held = f"the book has {show(self._lowest)} to {show(self._highest)}"
        thousands = self._thousands.doubt(self._highest, field.seen_range, median == "below")
        if median:
            hint = f"; {thousands.text}" if thousands else ""
            if field.percent and median == "above":
                hint = "; is it given in percent? Expected 0.1306 for 13.06 %"
            elif not hint:
                hint = "; is it in another unit?"
            rows = below if median == "below" else above
            text = f"{field.name}: the median is {median} {seen} ({held}){hint}"
            yield Doubt(f"{text}: {counted(rows, 'row')}", rows)
            return
        if thousands:
            yield Doubt(f"{field.name}: {thousands.text}", thousands.rows)
        elif self._usual is not None and self._count >= _FEW_TO_SCORE:
            yield from self._of_unit(self._usual)
        if outside := below + above:
            share = f"{share_of(outside, self._count)} is outside {seen} ({held})"
            yield Doubt(f"{field.name}: {share}: {counted(outside, 'row')}", outside)

    def _of_unit(self, usual: tuple[float, float]) -> Iterator[Doubt]:
        """Nearly all values beyond nearly all of those trained on: 0.14 instead of 14."""
        for rows, bound, side in ((self._low, usual[0], "below"), (self._high, usual[1], "above")):
            if rows >= _NEARLY_ALL * self._count:
                shown = f"{side} {self._field.show(bound)}"
                yield Doubt(
                    f"{self._field.name}: {share_of(rows, self._count)} of the values are {shown} "
                    f"({counted(rows, 'row')}), where at most 5 % of those trained on are; is it "
                    "in another unit?",
                    rows,
                )


def _of_codes(field: Field, codes: MissingCodes, rows: int) -> Doubt:
    count = sum(n for _, n in codes.codes)
    text = f"{field.name}: {codes_in_words(codes, rows)}"
    if field.missing:
        return Doubt(f"{text}; {_MISSING}", count)
    return Doubt(f"{text}; {_MISSING}, and set missing = true in the definition", count)


def codes_in_words(codes: MissingCodes, rows: int) -> str:
    """Codes with how often they stand, and what the other values are."""
    shown = ", ".join(
        f"{show_number(value)} in {counted(n, 'row')} ({share_of(n, rows)})"
        for value, n in codes.codes
    )
    lowest, highest = show_number(codes.lowest), show_number(codes.highest)
    return f"{shown}, where the other values are {lowest} to {highest}"


class _Texts:
    """A category's column."""

    def __init__(self, field: Field, scoring: bool) -> None:
        self._field, self._scoring = field, scoring
        self._missing = self._rows = 0
        self._counts: Counter[str] = Counter()
        self._uncounted = 0
        self._suggestions = Suggestions(MAX_RUN_COMPARISONS)

    def add(self, batch: Batch) -> None:
        name = self._field.name
        column = batch.every_loan.texts(name)
        self._missing += batch.missing[name]
        self._rows += len(column.codes)
        counts = np.bincount(column.codes + 1, minlength=len(column.levels) + 1)[1:]
        for level, count in zip(column.levels, counts.tolist(), strict=True):
            if level in self._counts or len(self._counts) < _COUNTED:
                self._counts[level] += count
            else:
                self._uncounted += count

    def doubts(self) -> Iterator[Doubt]:
        name = self._field.name
        if not self._counts:
            if 0 < self._rows == self._missing:
                yield Doubt(f"{name}: no row has a value", self._rows)
            return
        few = _FEW_TO_SCORE if self._scoring else _FEW
        total = self._counts.total()
        if len(self._counts) == 1 and not self._missing and total >= few:
            yield Doubt(f"{name}: every row has the value {next(iter(self._counts))!r}", total)
        yield from self._of_levels()

    def _of_levels(self) -> Iterator[Doubt]:
        doubted = [
            (text, count)
            for level, count in self._counts.most_common()
            if (text := self._doubt(level))
        ]
        for text, count in doubted[:_LEVELS]:
            yield Doubt(f"{text}: {counted(count, 'row')}", count)
        uncounted = self._uncounted if self._field.seen_levels else 0
        if rest := sum(count for _, count in doubted[_LEVELS:]) + uncounted:
            name, rows = self._field.name, counted(rest, "row")
            text = f"{name}: other values that were not seen in training: {rows}"
            yield Doubt(text, rest)

    def _doubt(self, level: str) -> str | None:
        field = self._field
        unseen = unusual_value(field, level, self._suggestions) if field.seen_levels else None
        if not stands_for_missing(level) or level in field.levels:
            return None if unseen is None else str(unseen)
        if unseen is None and self._scoring:
            return None
        also = "" if field.missing else ", and set missing = true in the definition"
        what = "is a level here" if unseen is None else "was not seen in training"
        return f"{field.name}: {show_given(level)} {what}; {_MISSING}{also}"


class _Ids:
    """The loans' ids, as hashes: a book may be larger than memory."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hashes: list[npt.NDArray[np.int64]] = []
        self._rows: list[Codes] = []

    def add(self, batch: Batch) -> None:
        if (ids := batch.every_id) is None:
            return
        hashes = np.array([hash(level) for level in ids.levels] or [0], dtype=np.int64)
        given = ids.codes >= 0
        self._hashes.append(hashes[ids.codes[given]])
        self._rows.append(batch.part.numbers[given])

    def doubts(self) -> Iterator[Doubt]:
        if not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        _, firsts = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), dtype=np.bool_)
        repeated[firsts] = False
        if count := int(np.count_nonzero(repeated)):
            shown = show_ranges(ranges_of(np.concatenate(self._rows)[repeated]))
            noun = "loan has the id" if count == 1 else "loans have the id"
            yield Doubt(f"{self._name}: {count:,} {noun} of an earlier one: {shown}", count)
