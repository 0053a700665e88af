"""Check that an output format can represent a book's columns unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from peerloan.book.cells import Mask, decoded, is_bytes
from peerloan.book.common_type import InexactError, cast
from peerloan.book.header import show_column
from peerloan.book.parts import BookError, Part, show_path
from peerloan.book.reader import Book


def check_writable(book: Book, out: Path) -> None:
    """Raise BookError if the format of `out` can't hold each value of the book unchanged.

    A Parquet column has one type, which may not represent the values of all files of a folder
    exactly. CSV is text, and binary columns of a book need not be UTF-8. Only a book with such
    columns is read for this check, once.
    """
    as_parquet = out.name.lower().endswith(".parquet")
    if as_parquet:
        names = book.mixed()
    else:
        names = [] if book.is_text else [f.name for f in book.schema if _may_be_bytes(f.type)]
    if not names:
        return
    for part in book.parts():
        for name in names:
            if as_parquet:
                _refuse_inexact(book, part, name)
            else:
                _refuse_no_text(part, name)


def filter_column(column: pa.Array, rows: Mask) -> pa.Array:
    """Filter a column by a mask; the type stays the same."""
    if rows.all():
        return column
    try:
        return column.filter(pa.array(rows))
    except pa.ArrowNotImplementedError:  # view types and run-end encoding
        edges = np.flatnonzero(np.diff(rows, prepend=False, append=False)).reshape(-1, 2)
        slices = [column.slice(first, end - first) for first, end in edges.tolist()]
        return pa.concat_arrays(slices or [column.slice(0, 0)])


def _refuse_inexact(book: Book, part: Part, name: str) -> None:
    kind = book.schema.field(name).type
    column = part.records.column(name)
    try:
        cast(column, kind)
    except InexactError as error:
        raise BookError(
            f"{_where(part, error.place)}: column {show_column(name)} is "
            f"{book.describe_types(name)}: expected a value that their common type {kind} holds "
            f"exactly, given {column[error.place]}; give the files one type, or write .csv, which "
            "holds each value as it is"
        ) from None


def _refuse_no_text(part: Part, name: str) -> None:
    column = part.records.column(name)
    values = decoded(column)
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        place = next(i for i, value in enumerate(values.to_pylist()) if not _is_utf8(value))
        raise BookError(
            f"{_where(part, place)}: column {show_column(name)} is of type {column.type} and holds "
            "bytes that are not UTF-8 text, which CSV can't hold; write .parquet"
        ) from None


def _where(part: Part, place: int) -> str:
    return f"{show_path(part.path or '')}: row {part.numbers[place]}"


def _may_be_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _may_be_bytes(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return kind != pa.uuid() and _may_be_bytes(kind.storage_type)
    return is_bytes(kind)


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode("utf-8") is not None
    except UnicodeDecodeError:
        return False
