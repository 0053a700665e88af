"""Reading one Parquet file; its columns keep their types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from peerloan.book.parts import PART_ROWS, BookError, Part, shown

MAGIC = b"PAR1"


class ParquetFile:
    """A Parquet file."""

    is_text = False

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self.schema: pa.Schema = file.schema_arrow.remove_metadata()
            self._rows: int = file.metadata.num_rows
            _ = self.schema.names  # decoded here, where a name that is no UTF-8 is caught
        self.has_rows = self._rows > 0

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the rows; `first` is the number of the first, `at_byte` hears how far it is read."""
        size = self.path.stat().st_size
        done = 0
        with self._opened() as file:
            for records in file.iter_batches(batch_size=PART_ROWS):
                numbers = np.arange(first + done, first + done + records.num_rows, dtype=np.int64)
                yield Part(records, numbers, [])
                done += records.num_rows
                at_byte(size * done // self._rows)

    @contextmanager
    def _opened(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        where = shown(self.path)
        try:
            # Without pre-buffering a row group need not fit into memory.
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            # OSError is also what a damaged page raises.
            reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
            raise BookError(
                f"{where}: expected a whole Parquet file, got a damaged one or one that is cut "
                f"off: {reason}"
            ) from None
