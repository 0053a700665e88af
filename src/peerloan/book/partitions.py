"""Partition columns: values in folder names, as Hive and Spark write them (region=north/x.csv)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa

from peerloan.book.cells import as_text, encode
from peerloan.book.parts import BookError, Part, TableFile, show_path
from peerloan.formatting import show_value
from peerloan.loan.text import parse_number

_MISSING = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(path: Path, root: Path) -> dict[str, str | None]:
    """The partition columns of a file, from the folders between a root and the file.

    If the root is itself a partition folder, it counts too, as do partition folders right above
    it. A missing value is None. Raises BookError for a name that is not UTF-8 or is repeated.
    """
    partitions: dict[str, str | None] = {}
    while root.name.find("=") > 0:
        root = root.parent
    for folder in path.relative_to(root).parts[:-1]:
        key, equals, value = folder.partition("=")
        if not key or not equals:
            continue
        try:
            name, text = _unquote(key), _unquote(value)
        except UnicodeDecodeError:
            raise BookError(
                f"{show_path(path)}: expected the folder's name in UTF-8, got {show_path(folder)}"
            ) from None
        if name in partitions:
            raise BookError(
                f"{show_path(path)}: expected each column once in the folders' names, got more "
                f"than one {name}"
            )
        partitions[name] = None if text in ("", _MISSING) else text
    return partitions


class PartitionedFile:
    """A file with its partition columns appended to its own columns.

    If the file has a column of the same name, each row must have the folder's value.
    """

    def __init__(self, file: TableFile, partitions: Mapping[str, str | None]) -> None:
        self.path, self.has_rows, self.notes = file.path, file.has_rows, file.notes
        self.format = file.format
        self._file = file
        names = set(file.schema.names)
        self._both = {name: text for name, text in partitions.items() if name in names}
        self._added = {name: text for name, text in partitions.items() if name not in names}
        # CSV columns are bytes, and an empty cell is missing.
        self._kind = pa.binary() if file.format == "CSV" else pa.string()
        self.schema = pa.schema(
            [*file.schema, *(pa.field(name, self._kind) for name in self._added)]
        )

    def first_lines(self) -> list[tuple[int, str]]:
        """The file's first lines."""
        return self._file.first_lines()

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the file and append the partition columns to each part."""
        for part in self._file.parts(first, at_byte):
            for name, text in self._both.items():
                self._expect_same(part, name, text)
            rows = part.records.num_rows
            added = [self._column(text, rows) for text in self._added.values()]
            columns = [*part.records.columns, *added]
            records = pa.RecordBatch.from_arrays(columns, schema=self._schema_of(part))
            yield replace(part, records=records)

    def _schema_of(self, part: Part) -> pa.Schema:
        fields = list(part.records.schema)
        return pa.schema([*fields, *(pa.field(name, self._kind) for name in self._added)])

    def _column(self, text: str | None, rows: int) -> pa.Array:
        if pa.types.is_binary(self._kind):
            return pa.repeat(pa.scalar((text or "").encode("utf-8"), self._kind), rows)
        return pa.repeat(pa.scalar(text, self._kind), rows)

    def _expect_same(self, part: Part, name: str, text: str | None) -> None:
        codes, values = encode(part.records.column(name))
        # The last entry is for missing values, which have code −1.
        wrong = np.array([*(not _is_same(value, text) for value in values), text is not None])
        places = np.flatnonzero(wrong[codes])
        if len(places):
            value = [*values, None][codes[places[0]]]
            # Shown as text, as the folder's name is.
            cell = "nothing" if value is None else show_value(as_text(value))
            raise BookError(
                f"{show_path(self.path)}: row {part.numbers[places[0]]}, {name}: expected "
                f"{'nothing' if text is None else show_value(text)}, as in its folder's name, "
                f"got {cell}"
            )


def _unquote(text: str) -> str:
    return unquote_to_bytes(os.fsencode(text)).decode("utf-8")


def _is_same(value: object, text: str | None) -> bool:
    """Whether a cell equals the folder's value: as text or as number."""
    cell = as_text(value)
    if not cell or text is None:
        return cell == "" and text is None
    if cell == text:
        return True
    try:
        number = parse_number(cell)
        return number is not None and number == parse_number(text)
    except ValueError:
        return False
