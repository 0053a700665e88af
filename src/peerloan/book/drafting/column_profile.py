"""Profile the columns of a table without a definition: the facts that a draft is based on."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from peerloan.book.cells import encode_texts, read_numbers
from peerloan.book.parts import Progress
from peerloan.book.quality.missing_codes import Extremes, MissingCodes
from peerloan.book.quality.thousands_separators import SeparatorCounter
from peerloan.book.reader import Book
from peerloan.stats.arrays import Codes, Numbers

# At most this many distinct values are counted: a column of more is not a category.
_COUNTED = 1_000
# At most this many numbers are kept for the median: of a longer column every 2nd, 4th, … one.
_KEPT = 200_000

ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
OTHER_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|([A-Z][a-z]{2}-\d{2,4})")
PERCENT = re.compile(r"\s*[+-]?\d+([.,]\d+)?\s*%\s*")
# Possessive: three parts that each take spaces would try every division of a cell full of them.
DRESSED_NUMBER = re.compile(r"\s*+[+-]?[$€£]?\s*+\d[\d.,'\u2019 ]*+\s*+[$€£kKmM]?\s*+")


@dataclass
class ColumnProfile:
    """One column: how many of its cells are missing, are numbers or match a form of text.

    `missing` counts empty cells and the spellings of a missing number, `empty` only empty cells.
    `broken` counts rows of the book with too many or too few cells; they are not in `rows`.
    `levels` counts distinct cells as text, at most 1,000 of them; `uncounted` is the rest.
    `example` is a text that is not a number.
    """

    name: str
    rows: int = 0
    broken: int = 0
    empty: int = 0
    missing: int = 0
    numbers: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    whole: bool = True
    rising: bool = True
    unreadable: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    uncounted: int = 0
    example: str | None = None
    thousands: SeparatorCounter = field(default_factory=SeparatorCounter)
    _extremes: Extremes = field(default_factory=Extremes)
    _distinct: bool = True
    _hashes: list[Codes] = field(default_factory=list)
    _kept: list[Numbers] = field(default_factory=list)
    _step: int = 1

    @property
    def texts(self) -> int:
        """How many cells hold something that is not a number."""
        return self.rows - self.missing - self.numbers

    @property
    def median(self) -> float:
        """The median of the numbers without codes for missing; of a long column, of a sample."""
        kept = np.concatenate(self._kept)
        if (codes := self.missing_codes()) is not None:
            others = kept[~np.isin(kept, [value for value, _ in codes.codes])]
            kept = others if len(others) else kept
        return float(np.median(kept))

    def missing_codes(self) -> MissingCodes | None:
        """The numbers that look like codes for missing."""
        return self._extremes.missing_codes()

    @property
    def distinct(self) -> bool:
        """Whether all cells that are not empty differ."""
        if not self._distinct or self.empty == self.rows:
            return False
        return len(np.unique(np.concatenate(self._hashes))) == self.rows - self.empty

    def add(self, column: pa.Array) -> None:
        """Add the next cells."""
        numbers, wrong = read_numbers(column)
        absent = np.isnan(numbers) & ~wrong
        self.missing += int(np.count_nonzero(absent))
        self._add_numbers(numbers[~np.isnan(numbers)])
        self.thousands.add(column)
        codes, texts = encode_texts(column)
        counts = np.bincount(codes + 1, minlength=len(texts) + 1)
        self.rows += len(column)
        self.empty += int(counts[0])
        is_text = np.zeros(len(texts), dtype=np.bool_)
        is_text[codes[wrong & (codes >= 0)]] = True
        hashes: list[int] = []
        for code, (text, count) in enumerate(zip(texts, counts[1:].tolist(), strict=True)):
            if text == "":
                self.empty += count
                continue
            self._distinct &= count == 1 and text not in self.levels
            hashes.append(hash(text))
            if text is None:
                self.unreadable += count
                continue
            if is_text[code]:
                self._add_text(text, count)
            if text in self.levels or len(self.levels) < _COUNTED:
                self.levels[text] += count
            else:
                self.uncounted += count
        # Needed only as long as the column may be an id.
        self._hashes = [*self._hashes, np.array(hashes, dtype=np.int64)] if self._distinct else []

    def _add_numbers(self, numbers: Numbers) -> None:
        if not len(numbers):
            return
        self.rising &= bool(np.all(np.diff(numbers) > 0)) and numbers[0] > self.highest
        self.numbers += len(numbers)
        self._extremes.add(numbers)
        self.lowest = min(self.lowest, float(numbers.min()))
        self.highest = max(self.highest, float(numbers.max()))
        self.whole &= bool(np.all(numbers == np.trunc(numbers)))
        self._kept.append(numbers[:: self._step])
        if sum(map(len, self._kept)) > _KEPT:
            self._kept = [np.concatenate(self._kept)[::2]]
            self._step *= 2

    def _add_text(self, text: str, count: int) -> None:
        self.example = self.example or text
        for name, form in (
            ("date", ISO_DATE),
            ("other date", OTHER_DATE),
            ("percent", PERCENT),
            ("dressed number", DRESSED_NUMBER),
        ):
            if form.fullmatch(text):
                self.forms[name] += count
                return


def profile_book(book: Book, progress: Progress | None = None) -> dict[str, ColumnProfile]:
    """Profile every column of a book; raises BookError for a file that can't be read."""
    profiles = {name: ColumnProfile(name) for name in book.columns}
    for part in book.parts(progress):
        for name, profile in profiles.items():
            profile.broken += len(part.problems)
            profile.add(part.records.column(name))
    return profiles
