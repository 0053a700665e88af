"""Read a Parquet file; its columns keep their types."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peerloan.book.parts import BookError, Part, check_column_count, rows_of_part, show_path

MAGIC = b"PAR1"
_BLOCK = 1 << 20


class ParquetFile:
    """A Parquet file."""

    format = "Parquet"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            check_column_count(file.metadata.num_columns, show_path(path))
            self.schema: pa.Schema = file.schema_arrow.remove_metadata()
            self._rows: int = file.metadata.num_rows
            _ = self.schema.names  # decode the names here, where errors of UTF-8 are caught
            end = _end_of_rows(file.metadata)
        self._expect_one(end)
        self.has_rows = self._rows > 0

    def first_lines(self) -> list[tuple[int, str]]:
        """Empty: the file is not text."""
        return []

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the rows; see `TableFile.parts`."""
        size = self.path.stat().st_size
        done = 0
        with self._open() as file:
            for records in file.iter_batches(batch_size=rows_of_part(len(self.schema))):
                numbers = np.arange(first + done, first + done + records.num_rows, dtype=np.int64)
                yield Part(records, numbers, [])
                done += records.num_rows
                at_byte(size * done // self._rows)

    def _expect_one(self, end: int) -> None:
        """Raise BookError if several Parquet files were concatenated into one.

        Only the last would be read, and at wrong offsets. `end` is the offset behind its rows.
        """
        with self.path.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            footer = file.tell() - int.from_bytes(file.read(4), "little")
            # Bytes between rows and footer: indexes, or the files before the last one.
            left = footer - end + len(MAGIC)
            file.seek(0)
            previous = b""
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                if 2 * MAGIC in previous + block:
                    raise BookError(
                        f"{show_path(self.path)}: expected one Parquet file, got several put into "
                        "one: put separate files into a folder"
                    )
                left, previous = left - len(block), block[-2 * len(MAGIC) + 1 :]

    @contextmanager
    def _open(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        where = show_path(self.path)
        try:
            # Without pre-buffering, a row group larger than memory can be read.
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            # A damaged page raises OSError too.
            reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
            raise BookError(
                f"{where}: expected a whole Parquet file, got a damaged one or one that is cut "
                f"off: {reason}"
            ) from None


def _end_of_rows(metadata: pyarrow.parquet.FileMetaData) -> int:
    """The offset behind the last row group; indexes may follow there."""
    if not metadata.num_row_groups:
        return len(MAGIC)
    group = metadata.row_group(metadata.num_row_groups - 1)
    ends = [len(MAGIC)]
    for i in range(group.num_columns):
        column = group.column(i)
        start = column.dictionary_page_offset if column.has_dictionary_page else None
        start = column.data_page_offset if start is None else start
        ends.append(start + column.total_compressed_size)
    return max(ends)
