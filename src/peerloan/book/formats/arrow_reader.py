"""Read an Arrow IPC file (Feather version 2) or stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from peerloan.book.parts import BookError, Part, check_column_count, rows_of_part, show_path

FILE_MAGIC = b"ARROW1"
# The first bytes of each message of a stream.
STREAM_MAGIC = b"\xff\xff\xff\xff"
_PADDED_MAGIC = 8
_END = b"\0\0\0\0"


class ArrowFile:
    """An Arrow file or stream; its columns keep their types.

    An Arrow file is a stream with an end mark and a footer, so both are read as streams. The file
    is memory-mapped: only what is read takes memory.
    """

    format = "Arrow"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as (_, reader):
            check_column_count(len(reader.schema), show_path(path))
            self.schema: pa.Schema = reader.schema.remove_metadata()
            _ = self.schema.names  # decode the names here, where errors of UTF-8 are caught
            self.has_rows = any(batch.num_rows for batch in reader)

    def first_lines(self) -> list[tuple[int, str]]:
        """Empty: the file is not text."""
        return []

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the rows; see `TableFile.parts`."""
        with self._open() as (mapped, reader):
            position, most_rows = mapped.tell(), rows_of_part(len(self.schema))
            for batch in reader:
                position = mapped.tell()
                for start in range(0, batch.num_rows, most_rows):
                    records = batch.slice(start, most_rows).replace_schema_metadata()
                    _expect_valid(records)
                    numbers = np.arange(first, first + records.num_rows, dtype=np.int64)
                    first += records.num_rows
                    yield Part(records, numbers, [])
                at_byte(position)
            self._expect_end(mapped, position)

    @contextmanager
    def _open(self) -> Iterator[tuple[pa.MemoryMappedFile, pa.RecordBatchStreamReader]]:
        try:
            with pa.memory_map(str(self.path)) as mapped:
                if mapped.read(len(FILE_MAGIC)) == FILE_MAGIC:
                    mapped.seek(_PADDED_MAGIC)
                else:
                    mapped.seek(0)
                with pa.ipc.open_stream(mapped) as reader:
                    yield mapped, reader
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
            raise self._broken(reason) from None

    def _expect_end(self, mapped: pa.MemoryMappedFile, position: int) -> None:
        """Raise BookError if the end mark is absent or more bytes follow it.

        `position` is the end of the last batch.
        """
        end, size = mapped.tell(), mapped.size()
        mapped.seek(end - len(_END))
        if end == position or mapped.read(len(_END)) != _END:
            raise self._broken("no end mark behind the last row")
        mapped.seek(0)
        if mapped.read(len(FILE_MAGIC)) == FILE_MAGIC:
            # A file ends with the footer, its length in four bytes, and the magic again.
            mapped.seek(max(0, size - len(FILE_MAGIC) - 4))
            length = int.from_bytes(mapped.read(4), "little")
            if mapped.read() != FILE_MAGIC or end + length + 4 + len(FILE_MAGIC) > size:
                raise self._broken("no footer at the end")
            end += length + 4 + len(FILE_MAGIC)
        if end != size:
            raise BookError(
                f"{show_path(self.path)}: expected one Arrow table, got {size - end:,} bytes more "
                "behind its end: were several put into one file?"
            )

    def _broken(self, reason: str) -> BookError:
        return BookError(
            f"{show_path(self.path)}: expected a whole Arrow file or stream, got a damaged one or "
            f"one that is cut off: {reason}"
        )


def _expect_valid(records: pa.RecordBatch) -> None:
    """Raise pa.ArrowInvalid for data that would make a reader leave its buffers.

    Text that is not UTF-8 passes: it is a problem of its value, not of the file.
    """
    for column in records.columns:
        if pa.types.is_string(column.type):
            column.view(pa.binary()).validate(full=True)
        elif pa.types.is_large_string(column.type):
            column.view(pa.large_binary()).validate(full=True)
        else:
            column.validate(full=True)
