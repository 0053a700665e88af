"""Reading one CSV file, gzipped or not: exact row numbers, and values as raw bytes.

Values stay bytes until a definition says what they are, so that text that is no UTF-8 is a
problem of its value and not of the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import time
import zlib
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from peerloan.book.parts import PART_ROWS, BookError, Part, shown
from peerloan.loan import Problem
from peerloan.loan.text import show_given

# Also the longest row that can be read.
_BLOCK = 1 << 22
_HEADER_LIMIT = 1 << 20
_RELEASE_SECONDS = 1.0
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")

# How files begin that people take for a table, and what they are.
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"ARROW1": "an Arrow (Feather) file",
    b"PAR1": "a gzipped Parquet file",
    b"%PDF": "a PDF document",
    b"SQLite": "an SQLite database",
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


class CsvFile:
    """A CSV file: comma-separated UTF-8 with a header, quoted where needed (RFC 4180)."""

    is_text = True

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._stream() as (stream, _):
            head = stream.read(_HEADER_LIMIT)
            names, self._start = self._header(head)
            rest = head[self._start :]
            while rest and not rest.strip(b"\r\n"):
                rest = stream.read(_HEADER_LIMIT)
            self.has_rows = bool(rest)
        self.schema = pa.schema([(name, pa.binary()) for name in names])

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the rows; `first` is the number of the first, `at_byte` hears how far it is read."""
        width = len(self.schema)
        rejected = _Rejected(width, first - 1)
        nothing = pa.RecordBatch.from_pylist([], schema=self.schema)
        # Columns are read by position: names may be anything here.
        keys = [str(i) for i in range(width)]
        with self._stream() as (stream, raw):
            stream.read(self._start)
            feed = _Feed(stream, raw, b"\n" + _end_mark(width).encode())

            def opened() -> Any:
                return pyarrow.csv.open_csv(
                    pa.PythonFile(feed, "r"),
                    # One thread: only then does the parser know the rows' numbers.
                    pyarrow.csv.ReadOptions(
                        column_names=keys, block_size=_BLOCK, use_threads=False
                    ),
                    pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=rejected),
                    pyarrow.csv.ConvertOptions(
                        column_types={key: pa.binary() for key in keys},
                        strings_can_be_null=False,
                    ),
                )

            number = first
            batches = _batches(opened, self.path, lambda: number - 1)
            try:
                for block, batch in enumerate(batches, 1):
                    columns = batch.columns
                    if not feed.ascii:
                        columns = [_from_latin(column) for column in columns]
                    records = pa.RecordBatch.from_arrays(columns, schema=self.schema)
                    for start in range(0, records.num_rows, PART_ROWS):
                        while rejected.fill_part(number):
                            yield rejected.part(nothing, number)
                            number += PART_ROWS
                        part = rejected.part(records.slice(start, PART_ROWS), number)
                        number += part.size
                        yield part
                    # The feed is ahead of the parser, which makes one batch of each block.
                    at_byte(feed.positions[min(block, len(feed.positions)) - 1])
            finally:
                batches.close()
                del batches
                feed.wait_for_release()
        # The mark comes after every row, unless a quotation that nobody closed has swallowed it.
        if rejected.last < number or not rejected.end():
            row = max(number - 1, rejected.last)
            raise BookError(
                f"{shown(self.path)}: expected a closing quotation mark, got none: "
                f"a quoted value in row {row} runs to the end of the file"
            )
        while rejected.waiting:
            part = rejected.part(nothing, number)
            number += part.size
            yield part

    @contextmanager
    def _stream(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """The text's bytes, and the file that they come from; its faults become BookErrors."""
        where = shown(self.path)
        try:
            with self.path.open("rb") as raw:
                packed = raw.read(2) == _GZIP
                raw.seek(0)
                yield (gzip.GzipFile(fileobj=raw) if packed else raw), raw  # type: ignore[misc]
        except EOFError:
            raise BookError(
                f"{where}: expected a whole gzip file, got one that is cut off"
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BookError(f"{where}: expected a gzip file, got a damaged one: {error}") from None
        except OSError as error:
            raise BookError(f"{where}: can't be read: {error.strerror or error}") from None

    def _header(self, head: bytes) -> tuple[list[str], int]:
        """The columns' names, and the number of bytes before the first row."""
        where = shown(self.path)
        for magic, kind in _FOREIGN.items():
            if head.startswith(magic):
                raise BookError(f"{where}: expected CSV (UTF-8) or Parquet, got {kind}")
        start = len(_BOM) if head.startswith(_BOM) else 0
        if not head[start:].strip(b"\r\n"):
            raise BookError(f"{where}: expected a table of loans, got an empty file")
        position = start

        def lines() -> Iterator[str]:
            nonlocal position
            for line in _LINE.finditer(head, start):
                position = line.end()
                yield line[0].decode("utf-8")

        try:
            names = next(row for row in csv.reader(lines()) if row)
        except UnicodeDecodeError as error:
            given = show_given(error.object)
            raise BookError(f"{where}: expected column names in UTF-8, got {given}") from None
        except csv.Error as error:
            raise BookError(
                f"{where}: expected a line of column names, got none: {error}"
            ) from None
        if position == len(head) and "\n" in names[-1]:
            raise BookError(
                f"{where}: expected a closing quotation mark in the column names, got none"
            )
        if "\x00" in "".join(names) or position == _HEADER_LIMIT:
            given = show_given(head[:20])
            raise BookError(f"{where}: expected CSV (UTF-8) or Parquet, got {given}")
        return names, position


class _Feed(io.RawIOBase):
    """A CSV's bytes as the parser should get them: a stream that only reads.

    Three things differ from the file: bytes that are not ASCII come as if the text were Latin-1,
    since the parser can report a wrong row only if it is valid UTF-8 (`_from_latin` turns them
    back); a block never ends with a carriage return, after which the parser would drop a newline
    even from within quotes; and a mark follows the last row, by which an unclosed quotation mark
    is found.
    """

    def __init__(self, stream: IO[bytes], raw: IO[bytes], end: bytes) -> None:
        self._stream, self._raw, self._end = stream, raw, end
        self.ascii = True
        self.positions: list[int] = []
        self._lent: list[bytearray] = []

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytearray:
        block = self._next(size)
        self._lent = [*self._still_lent(), block]
        return block

    def wait_for_release(self) -> None:
        """Wait until every block is let go of.

        Arrow reads in a thread of its own, which does so a little later than it has parsed them. If
        the interpreter ends just then, that thread aborts the whole process.
        """
        until = time.monotonic() + _RELEASE_SECONDS
        while self._still_lent() and time.monotonic() < until:
            time.sleep(0.0005)

    def _still_lent(self) -> list[bytearray]:
        lent = []
        for block in self._lent:
            try:
                block.clear()
            except BufferError:  # Arrow still looks at it
                lent.append(block)
        return lent

    def _next(self, size: int) -> bytearray:
        block = self._stream.read(size)
        self.positions.append(self._raw.tell())
        while block.endswith(b"\r") and (more := self._stream.read(1)):
            block += more
        if not block:
            block, self._end = self._end, b""
        if block.isascii():
            return bytearray(block)
        self.ascii = False
        return bytearray(block.decode("latin-1").encode("utf-8"))


class _Rejected:
    """The rows that have too many or too few cells, until their part is made."""

    def __init__(self, width: int, before: int) -> None:
        self._width, self._before = width, before
        self._end = _end_mark(width)
        # Plain machine integers: a book may consist of nothing else.
        self._numbers, self._cells = array("q"), array("q")
        self._next = 0
        self._last = ""

    def __call__(self, row: Any) -> str:
        """The parser's report of such a row."""
        self._numbers.append(row.number + self._before)
        self._cells.append(row.actual_columns)
        self._last = row.text
        return "skip"

    def end(self) -> bool:
        """Take off the end mark, which is the last row; whether it was there.

        An equal row before it is one of the table's.
        """
        ended = self._last == self._end
        if ended:
            self._numbers.pop()
            self._cells.pop()
        return ended

    @property
    def waiting(self) -> bool:
        return self._next < len(self._numbers)

    @property
    def last(self) -> int:
        """The number of the last row rejected, if there is one."""
        return self._numbers[-1] if self._numbers else 0

    def fill_part(self, first: int) -> bool:
        """Whether the rows from this number on are all rejected, as many as a part holds."""
        last = self._next + PART_ROWS - 1
        return last < len(self._numbers) and self._numbers[last] == first + PART_ROWS - 1

    def part(self, records: pa.RecordBatch, first: int) -> Part:
        """These records with their numbers, and the rejected rows among them.

        Without records, as many of the rejected rows as a part holds.
        """
        end = len(self._numbers) if records.num_rows else self._next + PART_ROWS
        rejected = np.array(self._numbers[self._next : end], dtype=np.int64)
        numbers = np.arange(first, first + records.num_rows + len(rejected), dtype=np.int64)
        if not len(rejected):
            return Part(records, numbers, [])
        numbers = numbers[~np.isin(numbers, rejected)][: records.num_rows]
        if records.num_rows:
            rejected = rejected[rejected < numbers[-1]]
        start, self._next = self._next, self._next + len(rejected)
        problems = [
            Problem(number, "(row)", _cells(self._width), _cells(cells))
            for number, cells in zip(
                rejected.tolist(), self._cells[start : self._next], strict=True
            )
        ]
        return Part(records, numbers, problems)


def _batches(
    opened: Callable[[], Any], path: Path, last_number: Callable[[], int]
) -> Generator[pa.RecordBatch, None, None]:
    """The parser's batches; what it can't read, the first block included, is a BookError."""
    reader = None
    try:
        reader = opened()
        yield from reader
    except pa.ArrowInvalid:
        raise BookError(
            f"{shown(path)}: expected rows of at most {_BLOCK >> 20} MB, got a longer one after "
            f"row {last_number()}: a quotation mark may not be closed"
        ) from None
    finally:
        del reader  # or the traceback of an error would keep its blocks


def _end_mark(width: int) -> str:
    """A row of one cell too many, so that it is never taken for a record."""
    return "\x04" + "," * width


def _from_latin(column: pa.Array) -> pa.Array:
    """A column of Latin-1 read as UTF-8, as the bytes that it was."""
    data = column.buffers()[2]
    if data is None or data.to_pybytes().isascii():
        return column
    values = [value.decode("utf-8").encode("latin-1") for value in column.to_pylist()]
    return pa.array(values, pa.binary())


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"
