"""Doubts about a book: values that are valid but unusual, collected while its parts are read.

A collector is given every part and returns its doubts at the end. The commands `check`, `score`,
`monitor`, `train` and `explore` all use the same collectors during their one pass over a book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from peerloan.book.duplicate_rows import DuplicateRows
from peerloan.book.parts import BookError
from peerloan.book.quality.missing_codes import Extremes, MissingCodes
from peerloan.book.quality.row_ranges import ranges_of, show_ranges
from peerloan.book.quality.thousands_separators import SeparatorCounter
from peerloan.book.validation import CheckedPart
from peerloan.formatting import agree, format_number, percent_of, plural, show_value
from peerloan.loan import MAX_RUN_COMPARISONS, Definition, Field, Label, Suggestions
from peerloan.loan.decoding import unusual_rows
from peerloan.loan.text import stands_for_missing
from peerloan.loan.units import ASK_UNIT, ask_unit, may_be_percent
from peerloan.loan.validation import unusual_value
from peerloan.stats.arrays import Codes

# At most this many unseen levels are listed.
_LEVELS = 20
# At most this many distinct texts are counted; each row may have another.
_COUNTED = 10_000
# In fewer rows, all values may be equal, or most loans late, by chance. The second is for a book
# that is scored.
_FEW, _FEW_TO_SCORE = 10, 30
# If this share of values is beyond the 5 % or 95 % quantile of training, the unit is wrong: drift
# does not move so many.
_NEARLY_ALL = 0.95
# At most this many rows are compared for duplicates; each takes 8 bytes of memory.
MOST_COMPARED = 20_000_000
# A doubt about a smaller share of the rows is reported, but does not refuse a book.
GRAVE_SHARE = 0.01
_MISSING = "does it stand for missing? Then leave the cell empty"


UsualRanges = Mapping[str, tuple[float, float]]


class Doubt(NamedTuple):
    """A doubt as a sentence, and how many rows it is about."""

    text: str
    rows: int


class Collector(Protocol):
    """Collects doubts about a book, part by part."""

    def add(self, batch: CheckedPart) -> None:
        """Add the next part."""
        ...

    def doubts(self) -> Iterable[Doubt]:
        """The doubts about all parts."""
        ...


@dataclass(frozen=True)
class BookDoubts:
    """The doubts about a book.

    `rows_with_warnings` counts the good rows with a value outside the range seen in training, or
    with an unseen level. The API would answer these with `warnings`.
    """

    book: str
    rows: int
    doubts: tuple[Doubt, ...] = ()
    rows_with_warnings: int = 0

    @property
    def texts(self) -> list[str]:
        """The doubts as sentences."""
        return [doubt.text for doubt in self.doubts]

    @property
    def grave(self) -> list[str]:
        """The doubts about at least 1 % of the rows; `--strict-doubts` refuses such a book."""
        return [doubt.text for doubt in self.doubts if doubt.rows >= GRAVE_SHARE * self.rows]

    def refuse(self, undone: str = "nothing was written") -> None:
        """Raise BookError, with all grave doubts, if there are any."""
        if grave := self.grave:
            raise BookError(
                f"{self.book}: {plural(len(grave), 'doubt')} (--strict-doubts: {undone}): "
                f"{'; '.join(grave)}"
            )

    def lines(self) -> list[str]:
        """The doubts, and how many rows have warnings, as lines of plain text."""
        lines = [f"doubt: {text}" for text in self.texts]
        if self.rows_with_warnings:
            rows = plural(self.rows_with_warnings, "row")
            verb = agree(self.rows_with_warnings, "has", "have")
            lines.append(
                f"{rows} of {self.rows:,} {verb} a value that is outside the range or levels seen "
                "in training"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The doubts as plain data."""
        return {"doubts": self.texts, "rows_with_warnings": self.rows_with_warnings}


class DoubtCollector:
    """Collects all doubts about a book.

    With `scoring` the definition is that of the version that scores the book: doubts that were
    already raised about its training table are left out. `usual` maps fields to the 5 % and 95 %
    quantiles of the training table, where these are known.
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

    def add(self, batch: CheckedPart) -> None:
        """Add the next part."""
        self._rows += batch.part.size
        self._unusual += int(np.count_nonzero(unusual_rows(batch.loans)))
        for collector in self._collectors:
            collector.add(batch)

    def result(self) -> BookDoubts:
        """The doubts about all parts."""
        doubts = tuple(doubt for collector in self._collectors for doubt in collector.doubts())
        return BookDoubts(self._book, self._rows, doubts, self._unusual)


class _Labels:
    """Warns of a book in which most loans are late: its label may be inverted."""

    def __init__(self, label: Label) -> None:
        self._label = label
        self._late = self._outcomes = 0

    def add(self, batch: CheckedPart) -> None:
        if batch.every_label is not None:
            self._late += int(np.count_nonzero(batch.every_label == 1))
            self._outcomes += int(np.count_nonzero(batch.every_label >= 0))

    def doubts(self) -> Iterator[Doubt]:
        if self._outcomes >= _FEW and 2 * self._late > self._outcomes:
            label = self._label
            yield Doubt(
                f"{label.column}: {self._late:,} of {plural(self._outcomes, 'loan')} "
                f"({percent_of(self._late, self._outcomes)}) are late, which is the value "
                f"{show_value(label.late)}; if that means on time, exchange late and on_time in "
                "the definition",
                self._late,
            )


class _EqualRows:
    """Warns of duplicate rows among the first 20 million."""

    def __init__(self) -> None:
        self._rows = DuplicateRows()
        self._count = 0

    def add(self, batch: CheckedPart) -> None:
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
    """Warns of a field of numbers: constant, out of range, wrong unit, codes for missing."""

    def __init__(self, field: Field, scoring: bool, usual: tuple[float, float] | None) -> None:
        self._field, self._scoring, self._usual = field, scoring, usual
        self._low = self._high = 0
        self._missing = self._rows = 0
        self._count = self._below = self._above = 0
        self._extremes = Extremes()
        self._thousands = SeparatorCounter()
        self._lowest, self._highest = np.inf, -np.inf

    def add(self, batch: CheckedPart) -> None:
        name = self._field.name
        column = batch.every_loan.numbers(name)
        self._missing += batch.missing[name]
        self._rows += len(column)
        numbers = column[~np.isnan(column)]
        if not len(numbers):
            return
        self._count += len(numbers)
        self._lowest = min(self._lowest, float(numbers.min()))
        self._highest = max(self._highest, float(numbers.max()))
        self._extremes.add(numbers)
        if name in batch.part.records.schema.names:
            self._thousands.add(batch.part.records.column(name))
        if (seen := self._field.seen_range_rounded) is not None:
            self._below += int(np.count_nonzero(numbers < seen[0]))
            self._above += int(np.count_nonzero(numbers > seen[1]))
        if self._usual is not None:
            self._low += int(np.count_nonzero(numbers < self._usual[0]))
            self._high += int(np.count_nonzero(numbers > self._usual[1]))

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
            yield _code_doubt(field, codes, self._rows)
            # The codes already have a doubt.
            low, high = field.seen_range_rounded or (-np.inf, np.inf)
            below -= sum(rows for value, rows in codes.codes if value < low)
            above -= sum(rows for value, rows in codes.codes if value > high)
        yield from self._range_doubts(below, above)

    def _codes(self) -> MissingCodes | None:
        codes, seen = self._extremes.missing_codes(), self._field.seen_range
        if codes is None or not self._scoring or seen is None:
            return codes
        unseen = [code for code in codes.codes if not seen[0] <= code.value <= seen[1]]
        return codes._replace(codes=unseen) if unseen else None

    def _range_doubts(self, below: int, above: int) -> Iterator[Doubt]:
        field, show = self._field, self._field.show
        seen, median = "", ""
        if field.seen_range is not None:
            seen = f"the range seen in training, {' to '.join(map(show, field.seen_range))}"
            # The median is outside if more than half of the values are on one side of the range.
            median = "below" if 2 * below > self._count else ""
            median = "above" if 2 * above > self._count else median
        book_range = f"the book has {show(self._lowest)} to {show(self._highest)}"
        thousands = self._thousands.doubt(self._highest, field.seen_range, median == "below")
        if median:
            is_above = median == "above"
            if thousands and not may_be_percent(field, is_above):
                hint = thousands.text
            else:
                hint = ask_unit(field, is_above)
            rows = below if median == "below" else above
            text = f"{field.name}: the median is {median} {seen} ({book_range}); {hint}"
            yield Doubt(f"{text}: {plural(rows, 'row')}", rows)
            return
        if thousands:
            yield Doubt(f"{field.name}: {thousands.text}", thousands.rows)
        elif self._usual is not None and self._count >= _FEW_TO_SCORE:
            yield from self._unit_doubts(self._usual)
        if outside := below + above:
            share = f"{percent_of(outside, self._count)} is outside {seen} ({book_range})"
            yield Doubt(f"{field.name}: {share}: {plural(outside, 'row')}", outside)

    def _unit_doubts(self, usual: tuple[float, float]) -> Iterator[Doubt]:
        """Warn of a wrong unit if nearly all values are beyond the usual range: 0.14 for 14 %."""
        for rows, bound, side in ((self._low, usual[0], "below"), (self._high, usual[1], "above")):
            if rows >= _NEARLY_ALL * self._count:
                limit = f"{side} {self._field.show(bound)}"
                yield Doubt(
                    f"{self._field.name}: {percent_of(rows, self._count)} of the values are "
                    f"{limit} ({plural(rows, 'row')}), where at most 5 % of those trained on are; "
                    + ASK_UNIT,
                    rows,
                )


def _code_doubt(field: Field, codes: MissingCodes, rows: int) -> Doubt:
    count = sum(n for _, n in codes.codes)
    text = f"{field.name}: {codes_in_words(codes, rows)}"
    if field.missing:
        return Doubt(f"{text}; {_MISSING}", count)
    return Doubt(f"{text}; {_MISSING}, and set missing = true in the definition", count)


def codes_in_words(codes: MissingCodes, rows: int) -> str:
    """Describe codes for missing: their counts, and the range of the other values."""
    counts = ", ".join(
        f"{format_number(value)} in {plural(n, 'row')} ({percent_of(n, rows)})"
        for value, n in codes.codes
    )
    lowest, highest = format_number(codes.lowest), format_number(codes.highest)
    return f"{counts}, where the other values are {lowest} to {highest}"


class _Texts:
    """Warns of a field of texts: constant, unseen levels, spellings of missing."""

    def __init__(self, field: Field, scoring: bool) -> None:
        self._field, self._scoring = field, scoring
        self._missing = self._rows = 0
        self._counts: Counter[str] = Counter()
        self._uncounted = 0
        self._suggestions = Suggestions(MAX_RUN_COMPARISONS)

    def add(self, batch: CheckedPart) -> None:
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
        yield from self._level_doubts()

    def _level_doubts(self) -> Iterator[Doubt]:
        by_level = [
            (text, count)
            for level, count in self._counts.most_common()
            if (text := self._level_doubt(level))
        ]
        for text, count in by_level[:_LEVELS]:
            yield Doubt(f"{text}: {plural(count, 'row')}", count)
        uncounted = self._uncounted if self._field.seen_levels else 0
        if rest := sum(count for _, count in by_level[_LEVELS:]) + uncounted:
            name, rows = self._field.name, plural(rest, "row")
            text = f"{name}: other values that were not seen in training: {rows}"
            yield Doubt(text, rest)

    def _level_doubt(self, level: str) -> str | None:
        field = self._field
        unseen = unusual_value(field, level, self._suggestions) if field.seen_levels else None
        if not stands_for_missing(level) or level in field.levels:
            return None if unseen is None else str(unseen)
        if unseen is None and self._scoring:
            return None
        advice = _MISSING
        if not field.missing:
            advice += ", and set missing = true in the definition"
        fact = "is a level of this field" if unseen is None else "was not seen in training"
        return f"{field.name}: {show_value(level)} {fact}; {advice}"


class _Ids:
    """Warns of repeated loan ids. Stores hashes, since a book may be larger than memory."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hashes: list[npt.NDArray[np.int64]] = []
        self._rows: list[Codes] = []

    def add(self, batch: CheckedPart) -> None:
        if (ids := batch.every_id) is None:
            return
        hashes = np.array([hash(level) for level in ids.levels] or [0], dtype=np.int64)
        has_id = ids.codes >= 0
        self._hashes.append(hashes[ids.codes[has_id]])
        self._rows.append(batch.part.numbers[has_id])

    def doubts(self) -> Iterator[Doubt]:
        if not self._hashes:
            return
        hashes = np.concatenate(self._hashes)
        _, firsts = np.unique(hashes, return_index=True)
        repeated = np.ones(len(hashes), dtype=np.bool_)
        repeated[firsts] = False
        if count := int(np.count_nonzero(repeated)):
            shown = show_ranges(ranges_of(np.concatenate(self._rows)[repeated]))
            loans, verb = plural(count, "loan"), agree(count, "has", "have")
            text = f"{self._name}: {loans} {verb} the id of an earlier one: {shown}"
            yield Doubt(text, count)
