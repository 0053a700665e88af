"""Writing a book: CSV, gzipped CSV or Parquet, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from peerloan.book.parts import BookError, shown
from peerloan.book.source import show_column

ENDINGS = (".csv", ".csv.gz", ".parquet")
_NEEDS_QUOTES = '[",\r\n]'


class Writer(Protocol):
    """Takes a book part by part."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append these rows, which have the schema's columns; raises BookError if it can't."""
        ...

    def close(self) -> None:
        """End the table; `open_writer` does it."""
        ...


@contextmanager
def open_writer(path: Path, schema: pa.Schema, overwrite: bool = False) -> Iterator[Writer]:
    """Write `.csv`, `.csv.gz` or `.parquet` by the ending; on an error nothing is left behind.

    The file has its name only once it is complete. Bytes, as a CSV book's columns hold them, are
    text: verbatim in CSV; in Parquet an empty one is null, and a byte that is no UTF-8 is escaped.
    Doubles read back exactly; a NaN is an empty cell in CSV.

    Raises BookError for an existing file (unless `overwrite`), another ending, a missing folder,
    a column that CSV can't hold, or a failing disk.
    """
    where = shown(path)
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise BookError(f"{where}: expected a name that ends in {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise BookError(f"{where}: no such folder")
    if path.is_dir():
        raise BookError(f"{where}: is a folder")
    if path.exists() and not overwrite:
        raise BookError(f"{where}: is there already (--overwrite replaces it)")
    # Beside it, since only within one file system a file takes a name at one stroke.
    partial = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
    with ExitStack() as stack:
        with _faults(where):
            file = stack.enter_context(partial.open("xb"))
            stack.callback(partial.unlink, missing_ok=True)
            writer: Writer
            if name.endswith(".parquet"):
                writer = _ParquetWriter(where, file, schema)
            elif name.endswith(".gz"):
                writer = _CsvWriter(where, _gzip(file), schema)
            else:
                writer = _CsvWriter(where, file, schema)
            # For the error's sake: a writer that nobody closed would try it later, in vain.
            stack.callback(_close_quietly, writer)
        yield writer
        with _faults(where):
            writer.close()
            file.flush()
            os.fsync(file.fileno())
            file.close()
            partial.replace(path)


@contextmanager
def _faults(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise BookError(f"{where}: can't be written: {reason}") from error


def _close_quietly(writer: Writer) -> None:
    with suppress(OSError, pa.ArrowException):
        writer.close()


def _gzip(file: IO[bytes]) -> gzip.GzipFile:
    # Neither name nor time: the same rows give the same bytes.
    return gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)


class _ParquetWriter:
    def __init__(self, where: str, file: IO[bytes], schema: pa.Schema) -> None:
        self._where = where
        self._schema = pa.schema(
            [f.with_type(pa.string()) if pa.types.is_binary(f.type) else f for f in schema]
        )
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [_text(c) if pa.types.is_binary(c.type) else c for c in batch.columns]
        with _faults(self._where):
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _CsvWriter:
    """Writes CSV by joining whole columns: Arrow's own writer refuses bytes that are no UTF-8."""

    def __init__(self, where: str, file: IO[bytes] | gzip.GzipFile, schema: pa.Schema) -> None:
        self._where = where
        for field in schema:
            try:
                pa.nulls(0, field.type).cast(pa.string())
            except pa.ArrowException:
                raise BookError(
                    f"{where}: can't be written as CSV: column {show_column(field.name)} "
                    f"is of type {field.type}"
                ) from None
        self._file = file
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(schema.names)
        self._file.write(header.getvalue().encode("utf-8"))

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        with _faults(self._where):
            cells = [_cells(column) for column in batch.columns]
            if len(cells) == 1:  # an empty line would be no row
                cells = [pc.if_else(pc.equal(cells[0], b""), b'""', cells[0])]
            rows = pc.binary_join_element_wise(*cells, b",")
            lines = pc.binary_join_element_wise(rows, b"\n", b"")
            # One buffer holds all lines, one behind the other.
            self._file.write(memoryview(lines.buffers()[2]))

    def close(self) -> None:
        if isinstance(self._file, gzip.GzipFile):
            self._file.close()


def _cells(column: pa.Array) -> pa.Array:
    """A column as the bytes of its cells, quoted where needed, empty where null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        column = column.cast(pa.string())
    column = column.cast(pa.binary())
    quoted = pc.match_substring_regex(column, _NEEDS_QUOTES)
    if pc.any(quoted).as_py():
        doubled = pc.replace_substring(column, '"', '""')
        wrapped = pc.binary_join_element_wise(b'"', doubled, b'"', b"")
        column = pc.if_else(quoted, wrapped, column)
    return pc.fill_null(column, b"")


def _text(column: pa.Array) -> pa.Array:
    column = pc.if_else(pc.equal(pc.binary_length(column), 0), None, column)
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        values = column.to_pylist()
        return pa.array(
            [None if v is None else v.decode("utf-8", "backslashreplace") for v in values],
            pa.string(),
        )
