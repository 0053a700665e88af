"""Read a CSV file, gzipped or not, with exact row numbers and values as raw bytes.

Values stay bytes until they are checked against a definition. So text that is not UTF-8 is a
problem of that value, and the rest of the file can be read.
"""

from __future__ import annotations

import io
import threading
import time
from array import array
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from peerloan.book.formats.csv_header import HEADER_LIMIT, read_header, read_lines
from peerloan.book.formats.csv_tail import find_tail
from peerloan.book.formats.signals import watch_signals
from peerloan.book.formats.text_stream import open_stream
from peerloan.book.parts import PART_ROWS, BookError, Part, is_mostly_broken, show_path
from peerloan.formatting import plural
from peerloan.loan import Problem

# Bytes that the parser reads at once; also the longest row that it can read.
_BLOCK = 1 << 22
_RELEASE_SECONDS = 1.0
_FIRST_LINES = 1 << 16
_NO_END = 1 << 62
# The parser checks for a signal after each so many rejected rows.
_SIGNAL_CHECK_ROWS = 1_024


class CsvFile:
    """A CSV file: comma-separated UTF-8 with a header, quoted where needed (RFC 4180)."""

    format = "CSV"

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_stream(self.path) as (stream, raw):
            head = stream.read(HEADER_LIMIT)
            header = read_header(head, show_path(path))
            self._names, self._start = header.names, header.start
            size = path.stat().st_size if stream is raw else None
            tail = find_tail(stream, size, self._start)
            # The byte offset behind the last row; None: the end of the file.
            self._end = None if tail is None else tail.start
            self.has_rows = self._any_row(stream)
        self._nameless = _nameless(self._names)
        named = [name for i, name in enumerate(self._names) if i not in self._nameless]
        self.schema = pa.schema([(name, pa.binary()) for name in named])
        self.notes = (*header.notes, *self._skip_notes(0 if tail is None else tail.rows))

    def first_lines(self) -> list[tuple[int, str]]:
        """The first lines with their line numbers."""
        with open_stream(self.path) as (stream, _):
            return read_lines(stream.read(_FIRST_LINES))

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the rows; see `TableFile.parts`."""
        for part in self._all_columns(first, at_byte):
            yield self._named_columns(part) if self._nameless else part

    def _any_row(self, stream: IO[bytes]) -> bool:
        """Whether there is a line that is not blank before the end of the table."""
        stream.seek(self._start)
        left = _NO_END if self._end is None else self._end - self._start
        while left and (block := stream.read(min(left, HEADER_LIMIT))):
            if block.strip(b"\r\n"):
                return True
            left -= len(block)
        return False

    def _skip_notes(self, rows: int) -> Iterator[str]:
        if count := len(self._nameless):
            columns = plural(count, "column")
            yield f"{columns} without a name skipped: a row with a value there is refused"
        if rows:
            yield f"{plural(rows, 'row')} without any value at the end skipped"

    def _named_columns(self, part: Part) -> Part:
        """Drop the nameless columns; a row with a value in one becomes a problem."""
        records = part.records
        wrong = np.zeros(records.num_rows, dtype=np.bool_)
        problems = []
        for i in self._nameless:
            lengths = pc.binary_length(records.column(i)).to_numpy(zero_copy_only=False)
            description = f"a value in column {i + 1}, which has no name"
            places = np.flatnonzero((lengths > 0) & ~wrong)
            problems += [
                Problem(row, "(row)", plural(len(self._names), "cell"), description)
                for row in part.numbers[places].tolist()
            ]
            wrong[places] = True
        named = [i for i in range(len(self._names)) if i not in self._nameless]
        columns = [records.column(i) for i in named]
        records = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if not problems:
            return Part(records, part.numbers, part.problems)
        problems = sorted([*part.problems, *problems], key=lambda problem: problem.loan or 0)
        return Part(records.filter(pa.array(~wrong)), part.numbers[~wrong], problems)

    def _all_columns(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        width = len(self._names)
        rejected = _Rejected(width, first - 1)
        schema = pa.schema([(name, pa.binary()) for name in self._names])
        no_records = pa.RecordBatch.from_pylist([], schema=schema)
        # Columns are read by position: names may be empty or repeated here.
        keys = [str(i) for i in range(width)]
        with open_stream(self.path) as (stream, raw):
            stream.read(self._start)
            left = _NO_END if self._end is None else self._end - self._start
            feed = Feed(stream, raw, left, b"\n" + _end_mark(width).encode())

            def open_reader() -> Any:
                return pyarrow.csv.open_csv(
                    pa.PythonFile(feed, "r"),
                    # One thread: otherwise the parser does not know the row numbers.
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
            batches = _batches(
                open_reader, rejected, lambda: self._read_error(rejected, number - 1)
            )
            try:
                for block, batch in enumerate(batches, 1):
                    # Even if the batch has no records: otherwise rejected rows would fill memory.
                    while rejected.fill_part(number):
                        yield rejected.part(no_records, number)
                        number += PART_ROWS
                    columns = batch.columns
                    if not feed.ascii:
                        columns = [_from_latin(column) for column in columns]
                    records = pa.RecordBatch.from_arrays(columns, schema=schema)
                    for start in range(0, records.num_rows, PART_ROWS):
                        while rejected.fill_part(number):
                            yield rejected.part(no_records, number)
                            number += PART_ROWS
                        part = rejected.part(records.slice(start, PART_ROWS), number)
                        number += part.size
                        yield part
                    # The feed is ahead of the parser, which makes one batch per block.
                    at_byte(feed.positions[min(block, len(feed.positions)) - 1])
            finally:
                batches.close()
                del batches
                feed.wait_for_release()
        # The end mark is the last row, unless an unclosed quotation mark swallowed it.
        if rejected.last < number or not rejected.end():
            row = max(number - 1, rejected.last)
            raise BookError(
                f"{show_path(self.path)}: expected a closing quotation mark, got none: "
                f"a quoted value in row {row} runs to the end of the file"
            )
        while rejected.waiting:
            part = rejected.part(no_records, number)
            number += part.size
            yield part

    def _read_error(self, rejected: _Rejected, last: int) -> BaseException:
        """The error that stopped the parser after row `last`."""
        if rejected.stopped:
            return KeyboardInterrupt()
        if rejected.refusal:
            return BookError(f"{show_path(self.path)}: {rejected.refusal}")
        return BookError(
            f"{show_path(self.path)}: expected rows of at most {_BLOCK >> 20} MB, got a longer one "
            f"after row {last}: a quotation mark may not be closed"
        )


class Feed(io.RawIOBase):
    """A read-only stream of a CSV's bytes, adapted for the parser.

    It differs from the file in three ways:

    - Text is decoded as Latin-1 and encoded as UTF-8, since the parser can report a wrong row only
      if it is valid UTF-8. `_from_latin` reverses this.
    - A block never ends with a carriage return: the parser would drop a newline that follows, even
      within quotes.
    - An end mark follows the last row, by which an unclosed quotation mark is detected.

    `left` is the number of bytes to read from the file. Thread-safe: Arrow reads in its own thread.
    """

    def __init__(self, stream: IO[bytes], raw: IO[bytes], left: int, end: bytes) -> None:
        self._stream, self._raw, self._left, self._end = stream, raw, left, end
        self.ascii = True
        self.positions: list[int] = []
        self._lent: list[bytearray] = []
        self._reading = threading.Lock()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytearray:
        with self._reading:
            block = self._next(size)
            self._lent = [*self.still_lent(), block]
        return block

    def wait_for_release(self) -> None:
        """End the stream and wait (at most a second) until Arrow has released every block.

        Arrow's reading thread releases a block a little after it was parsed. If the interpreter
        ended in between, that thread would abort the process.
        """
        deadline = time.monotonic() + _RELEASE_SECONDS
        if self._reading.acquire(timeout=_RELEASE_SECONDS):
            self._left, self._end = 0, b""
            self._reading.release()
        while self.still_lent() and time.monotonic() < deadline:
            time.sleep(0.0005)

    def still_lent(self) -> list[bytearray]:
        """The blocks that Arrow has not released yet; the others are cleared."""
        lent = []
        for block in self._lent:
            try:
                block.clear()
            except BufferError:  # Arrow still uses this block
                lent.append(block)
        return lent

    def _take(self, size: int) -> bytes:
        block = self._stream.read(min(size, self._left))
        self._left -= len(block)
        return block

    def _next(self, size: int) -> bytearray:
        block = self._take(size)
        self.positions.append(self._raw.tell())
        while block.endswith(b"\r") and (more := self._take(1)):
            block += more
        if not block:
            block, self._end = self._end, b""
        if block.isascii():
            return bytearray(block)
        self.ascii = False
        return bytearray(block.decode("latin-1").encode("utf-8"))


class _Rejected:
    """Collects rows with too many or too few cells until their part is made."""

    def __init__(self, width: int, before: int) -> None:
        self._width, self._before = width, before
        self._end = _end_mark(width)
        # Machine integers, not objects: every row of a book may be rejected.
        self._numbers, self._cells = array("q"), array("q")
        # How many rows were rejected; row number and cells of the first; text of the last.
        self._count = self._first = self._first_cells = 0
        self._last = ""
        # The row number of the last rejected row; 0 if there is none.
        self.last = 0
        # The error if reading was stopped because of too many rejected rows.
        self.refusal = ""
        self.has_signal: Callable[[], bool] = lambda: False
        self.stopped = False

    def __call__(self, row: Any) -> str:
        """Handle a rejected row; the parser calls this in its own thread."""
        self.last = row.number + self._before
        self._numbers.append(self.last)
        self._cells.append(row.actual_columns)
        self._last = row.text
        if not self._count:
            self._first, self._first_cells = self.last, row.actual_columns
        self._count += 1
        if self._count % _SIGNAL_CHECK_ROWS == 0 and self.has_signal():
            self.stopped = True
            return "error"
        if not is_mostly_broken(self._count, row.number):
            return "skip"
        self.refusal = (
            f"expected rows of {plural(self._width, 'cell')}, as the header has, got another "
            f"number in {self._count:,} of the first {row.number:,} rows, such as "
            f"{plural(self._first_cells, 'cell')} in row {self._first}: is the header that of "
            "another table?"
        )
        return "error"

    def end(self) -> bool:
        """Remove the end mark if it is the last rejected row; returns whether it was.

        An equal row before it belongs to the table.
        """
        has_end_mark = self._last == self._end
        if has_end_mark:
            self._numbers.pop()
            self._cells.pop()
        return has_end_mark

    @property
    def waiting(self) -> bool:
        """Whether there are rejected rows that no part contains yet."""
        return bool(self._numbers)

    def fill_part(self, first: int) -> bool:
        """Whether the next PART_ROWS rows, from this number on, are all rejected."""
        last = PART_ROWS - 1
        return last < len(self._numbers) and self._numbers[last] == first + last

    def part(self, records: pa.RecordBatch, first: int) -> Part:
        """Make a part of these records and the rejected rows among them.

        Without records, the part holds up to PART_ROWS rejected rows.
        """
        end = len(self._numbers) if records.num_rows else PART_ROWS
        rejected = np.array(self._numbers[:end], dtype=np.int64)
        numbers = np.arange(first, first + records.num_rows + len(rejected), dtype=np.int64)
        if not len(rejected):
            return Part(records, numbers, [])
        numbers = numbers[~np.isin(numbers, rejected)][: records.num_rows]
        if records.num_rows:
            rejected = rejected[rejected < numbers[-1]]
        problems = [
            Problem(number, "(row)", plural(self._width, "cell"), plural(cells, "cell"))
            for number, cells in zip(rejected.tolist(), self._cells[: len(rejected)], strict=True)
        ]
        del self._numbers[: len(rejected)], self._cells[: len(rejected)]
        return Part(records, numbers, problems)


def _batches(
    open_reader: Callable[[], Any], rejected: _Rejected, make_error: Callable[[], BaseException]
) -> Generator[pa.RecordBatch, None, None]:
    """Iterate over the parser's batches; raises `make_error()` if the parser fails."""
    reader = None
    try:
        while True:
            # Only while parsing: the consumer of the batches may handle signals itself.
            with watch_signals() as rejected.has_signal:
                reader = open_reader() if reader is None else reader
                batch = next(reader, None)
            if batch is None:
                return
            yield batch
    except pa.ArrowInvalid:
        raise make_error() from None
    finally:
        del reader  # otherwise the traceback of an error keeps its blocks alive


def _nameless(names: list[str]) -> list[int]:
    """The positions of the columns without a name, which are not read.

    At most one nameless column is read all the same: the first column, where R and pandas write
    row names, or a single nameless column between others, whose name is simply empty.
    """
    places = [i for i, name in enumerate(names) if not name.strip()]
    if places[:1] == [0]:
        return places[1:]
    return [] if len(places) == 1 and places[0] < len(names) - 1 else places


def _end_mark(width: int) -> str:
    """A row with one cell too many, so that it is always rejected."""
    return "\x04" + "," * width


def _from_latin(column: pa.Array) -> pa.Array:
    """Reverse the encoding of `Feed`: the original bytes of a column."""
    data = column.buffers()[2]
    if data is None or data.to_pybytes().isascii():
        return column
    values = [value.decode("utf-8").encode("latin-1") for value in column.to_pylist()]
    return pa.array(values, pa.binary())
