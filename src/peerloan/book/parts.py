"""Types that all file formats share: the parts of a book, limits, and BookError."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from peerloan.errors import PeerLoanError
from peerloan.loan import Problem
from peerloan.stats.arrays import Codes

PART_ROWS = 65_536
# Limit of values (rows × columns) in a part: a part of a very wide table has fewer rows.
_PART_VALUES = 1 << 24
# Reading stops after this many broken rows if they are more than this share of the rows read: then
# the header does not belong to the table.
MOST_BROKEN, _BROKEN_SHARE = 1_000_000, 0.9
# A file of more columns is not a table of loans; its first line may be a row of values.
MOST_COLUMNS = 10_000

Progress = Callable[[float], None]


class BookError(PeerLoanError, ValueError):
    """A book that can't be used; the message has the file, what was expected and what was given."""


class EmptyFileError(BookError):
    """An empty file: an error if it is the only file of the book, else it is skipped."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a book.

    `records` are the columns as in the file: raw bytes from CSV, the file's types from other
    formats. `numbers` is the row number of each record: data rows count from 1, without the header
    and blank lines, and continue across the files of a folder. `problems` are the broken rows,
    which can't be split into the table's cells (field "(row)"); they are not in `records`. `path`
    is the file of these rows.
    """

    records: pa.RecordBatch
    numbers: Codes
    problems: list[Problem]
    path: Path | None = None

    @property
    def size(self) -> int:
        """How many rows the part has, broken rows included."""
        return len(self.numbers) + len(self.problems)


class TableFile(Protocol):
    """One file of a book. `notes` are sentences on what was skipped in it, such as a column."""

    path: Path
    format: str
    schema: pa.Schema
    has_rows: bool
    notes: tuple[str, ...]

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the file in parts; raises BookError.

        `first` is the number of the first row. `at_byte` is called with the file position reached.
        """
        ...

    def first_lines(self) -> list[tuple[int, str]]:
        """The first lines of a CSV file with their line numbers; empty for other formats."""
        ...


def rows_of_part(columns: int) -> int:
    """How many rows a part of a table with this many columns has: at most PART_ROWS."""
    return min(PART_ROWS, max(1, _PART_VALUES // max(columns, 1)))


def is_mostly_broken(broken: int, rows: int) -> bool:
    """Whether so many rows are broken that the file can't be the expected table."""
    return broken >= MOST_BROKEN and broken > _BROKEN_SHARE * rows


def check_column_count(count: int, where: str) -> None:
    """Raise BookError for a table of more than MOST_COLUMNS columns."""
    if count > MOST_COLUMNS:
        raise BookError(
            f"{where}: expected at most {MOST_COLUMNS:,} columns, got {count:,}: a table of loans "
            "has a row for each loan"
        )


def show_path(path: Path | str) -> str:
    """A path as printable text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
