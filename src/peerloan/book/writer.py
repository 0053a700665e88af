"""Write a book as CSV, gzipped CSV or Parquet, completely or not at all."""

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

from peerloan import private_files
from peerloan.book.cells import decoded
from peerloan.book.common_type import InexactError, cast
from peerloan.book.formats.json_columns import NESTED
from peerloan.book.header import show_column
from peerloan.book.parts import BookError, show_path
from peerloan.book.spreadsheets import escape_formula, escape_formulas

ENDINGS = (".csv", ".csv.gz", ".parquet")
_NEEDS_QUOTES = '[",\r\n]'


class BookWriter(Protocol):
    """Writes a book part by part."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, which have the schema's columns; raises BookError."""
        ...

    def close(self) -> None:
        """Finish the table; `open_writer` calls this."""
        ...


@contextmanager
def open_writer(
    path: Path, schema: pa.Schema, overwrite: bool = False, spreadsheet_safe: bool = False
) -> Iterator[BookWriter]:
    """Write `.csv`, `.csv.gz` or `.parquet`, by the ending of the path.

    The file gets its name once it is complete; on an error nothing is left behind. Columns are
    written in the schema's order.

    - Parquet: columns are cast to the schema's types if that changes no value. Cells of a CSV book
      become text if the schema says so: empty ones null, bytes that are not UTF-8 escaped.
    - CSV: texts and bytes are written verbatim, a UUID in its usual form, other values as Arrow
      formats them. Doubles read back exactly; NaN is an empty cell.

    With `spreadsheet_safe`, a text that a spreadsheet would run as a formula gets an apostrophe
    before it. Raises BookError for an existing file (unless `overwrite`), another ending, a missing
    folder, a column that the format can't hold, or a failing disk.
    """
    where = show_path(path)
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise BookError(f"{where}: expected a name that ends in {', '.join(ENDINGS)}")
    if spreadsheet_safe and name.endswith(".parquet"):
        raise BookError(f"{where}: --spreadsheet-safe is for .csv and .csv.gz alone")
    if not path.parent.is_dir():
        raise BookError(f"{where}: no such folder")
    if path.is_dir():
        raise BookError(f"{where}: is a folder")
    if path.exists() and not overwrite:
        raise BookError(f"{where}: already exists; --overwrite replaces it")
    # In the same folder, since a rename is atomic only within one file system.
    partial = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
    with ExitStack() as stack:
        with _faults(where):
            file = stack.enter_context(open(partial, "xb", opener=private_files.opener))
            stack.callback(partial.unlink, missing_ok=True)
            writer: BookWriter
            if name.endswith(".parquet"):
                writer = _ParquetWriter(where, file, schema)
            elif name.endswith(".gz"):
                writer = _CsvWriter(where, _gzip(file), schema, spreadsheet_safe)
            else:
                writer = _CsvWriter(where, file, schema, spreadsheet_safe)
            # After an error: a writer left open would try to close, and fail, when it is collected.
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


def _close_quietly(writer: BookWriter) -> None:
    with suppress(OSError, pa.ArrowException):
        writer.close()


def _gzip(file: IO[bytes]) -> gzip.GzipFile:
    # No file name and no time in the header: the same rows give the same bytes.
    return gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)


class _ParquetWriter:
    def __init__(self, where: str, file: IO[bytes], schema: pa.Schema) -> None:
        self._where = where
        self._schema = schema
        for field in schema:
            if not _fits_parquet(field):
                raise _unfit(where, "Parquet", field)
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [self._column(*pair) for pair in zip(batch.columns, self._schema, strict=True)]
        with _faults(self._where):
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def _column(self, column: pa.Array, field: pa.Field) -> pa.Array:
        if pa.types.is_binary(column.type) and pa.types.is_string(field.type):
            return _text(column)
        try:
            return cast(column, field.type)
        except InexactError:
            raise BookError(
                f"{self._where}: can't be written: column {show_column(field.name)} of type "
                f"{field.type} can't hold each value of type {column.type}"
            ) from None

    def close(self) -> None:
        self._writer.close()


class _CsvWriter:
    """Writes CSV by joining columns. Arrow's own writer refuses bytes that are not UTF-8."""

    def __init__(
        self, where: str, file: IO[bytes] | gzip.GzipFile, schema: pa.Schema, safe: bool
    ) -> None:
        self._where = where
        self._safe = safe
        for field in schema:
            if not _fits_csv(field):
                raise _unfit(where, "CSV", field)
        self._file = file
        header = io.StringIO()
        names = [escape_formula(name) for name in schema.names] if safe else schema.names
        csv.writer(header, lineterminator="\n").writerow(names)
        self._file.write(header.getvalue().encode("utf-8"))

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        with _faults(self._where):
            cells = [_cells(column, self._safe) for column in batch.columns]
            if len(cells) == 1:  # an empty line would not be read as a row
                cells = [pc.if_else(pc.equal(cells[0], b""), b'""', cells[0])]
            rows = pc.binary_join_element_wise(*cells, b",")
            lines = pc.binary_join_element_wise(rows, b"\n", b"")
            # This buffer holds all lines in sequence.
            self._file.write(memoryview(lines.buffers()[2]))

    def close(self) -> None:
        if isinstance(self._file, gzip.GzipFile):
            self._file.close()


def _unfit(where: str, format_name: str, field: pa.Field) -> BookError:
    return BookError(
        f"{where}: can't be written as {format_name}: column {show_column(field.name)} "
        f"is of type {field.type}{'; write .parquet' if format_name == 'CSV' else ''}"
    )


def _fits_csv(field: pa.Field) -> bool:
    try:
        empty = decoded(pa.nulls(0, field.type))
        _cells(empty)
        if pa.types.is_timestamp(empty.type):
            _cells(pa.array([0], empty.type))  # the zone is looked up only if there is a value
    except pa.ArrowException:
        return False
    # A cell would show a duration's count without its unit.
    return not pa.types.is_duration(empty.type)


def _fits_parquet(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_dictionary(kind) and kind.value_type in (pa.string_view(), pa.binary_view()):
        return False  # Arrow raises only once there is a value
    schema = pa.schema([field.with_nullable(True)])
    try:
        with pyarrow.parquet.ParquetWriter(io.BytesIO(), schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays([pa.nulls(0, field.type)], schema=schema))
    except (pa.ArrowException, OSError):
        return False
    return True


def _cells(column: pa.Array, safe: bool = False) -> pa.Array:
    """Convert a column to CSV cells (bytes): quoted where needed, empty where null."""
    if column.type == NESTED:  # the cell is the JSON text
        column = pc.struct_field(column, "json")
    column = decoded(column)
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())  # Arrow has no is_nan for half floats
    if pa.types.is_floating(column.type):
        column = _number_texts(pc.if_else(pc.is_nan(column), None, column))
    if not pa.types.is_binary(column.type):
        column = column.cast(pa.string()).cast(pa.binary())
    elif safe:
        column = escape_formulas(column)
    quoted = pc.match_substring_regex(column, _NEEDS_QUOTES)
    if pc.any(quoted).as_py():
        doubled = pc.replace_substring(column, '"', '""')
        wrapped = pc.binary_join_element_wise(b'"', doubled, b'"', b"")
        column = pc.if_else(quoted, wrapped, column)
    return pc.fill_null(column, b"")


def _number_texts(column: pa.Array) -> pa.Array:
    """Convert floating numbers to text: whole ones to all of their digits, as other formats and the
    ledger have them (12345678901, not 1.2345678901e+10), others to the shortest decimal.
    """
    texts = column.cast(pa.string())
    doubles = column.cast(pa.float64())
    size = pc.abs(doubles)
    # Not zero: a negative one keeps its sign.
    is_whole = pc.and_(pc.equal(pc.trunc(doubles), doubles), pc.greater(size, 0.0))
    whole = (
        pc.if_else(pc.and_(is_whole, pc.less(size, 2.0**63)), doubles, None)
        .cast(pa.int64())
        .cast(pa.string())
    )
    return pc.coalesce(whole, texts)


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
