"""What every kind of book is read into, and the one error for a book that can't be read."""

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
# The values of a part of very many columns, which has fewer rows.
_PART_VALUES = 1 << 24
# So many rows that are none, more than nine in ten of those read: whatever the file is, it is not
# the table that its first line promises.
MOST_BROKEN, _BROKEN_SHARE = 1_000_000, 0.9
# More columns are hardly a table of loans: their names may be values.
MOST_COLUMNS = 10_000

Progress = Callable[[float], None]


class BookError(PeerLoanError, ValueError):
    """A book that can't be used: one line that names the file, what was expected, what given."""


class EmptyFileError(BookError):
    """A file without a byte of a table: no book by itself, but harmless among others."""


@dataclass(frozen=True)
class Part:
    """A run of a book's rows.

    `records` are the columns as given: raw bytes from CSV, the types of other formats. `numbers` is
    each record's row number: data rows from 1, header and blank lines not counted, on across the
    files of a folder. `problems` are the rows that can't be taken apart into cells, such as those
    with too many or too few (field "(row)"); these are not among the records. `path` is the
    file that the rows stand in.
    """

    records: pa.RecordBatch
    numbers: Codes
    problems: list[Problem]
    path: Path | None = None

    @property
    def size(self) -> int:
        """How many rows the part holds, those with a wrong number of cells included."""
        return len(self.numbers) + len(self.problems)


class TableFile(Protocol):
    """One file of a book. `notes` are on what was not taken as it stands, such as a column."""

    path: Path
    format: str
    schema: pa.Schema
    has_rows: bool
    notes: tuple[str, ...]

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the file; `first` is the number of its first row. Raises BookError."""
        ...

    def first_lines(self) -> list[tuple[int, str]]:
        """The first lines of CSV from the header on, with their numbers; none of other formats."""
        ...


def rows_of_part(columns: int) -> int:
    """How many rows a part has of a table of so many columns: at most PART_ROWS."""
    return min(PART_ROWS, max(1, _PART_VALUES // max(columns, 1)))


def is_no_table(broken: int, rows: int) -> bool:
    """Whether so many of the rows read so far are broken that reading on says nothing more."""
    return broken >= MOST_BROKEN and broken > _BROKEN_SHARE * rows


def expect_columns(count: int, where: str) -> None:
    """Raises BookError for a table of more columns than a table of loans has."""
    if count > MOST_COLUMNS:
        raise BookError(
            f"{where}: expected at most {MOST_COLUMNS:,} columns, got {count:,}: a table of loans "
            "has a row for each loan"
        )


def shown(path: Path | str) -> str:
    """A path for an error's line; a name that is no Unicode text is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
