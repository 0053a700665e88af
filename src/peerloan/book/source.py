"""Opening a book: CSV (also gzipped) or Parquet; a file, a folder or a glob; read part by part."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from peerloan.book.csv_file import CsvFile
from peerloan.book.parquet_file import MAGIC as PARQUET_MAGIC
from peerloan.book.parquet_file import ParquetFile
from peerloan.book.parts import BookError, Part, Progress, TableFile, shown
from peerloan.loan.checks import Problem, show_name
from peerloan.loan.text import parse_number

_ENDINGS = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class Book:
    """An opened book: its name as the user gave it, its files, and its columns' names and types.

    CSV columns are of type binary. `bytes_total` is the size of the files.
    """

    name: str
    files: tuple[TableFile, ...]
    schema: pa.Schema
    bytes_total: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in the order in which they are read."""
        return tuple(file.path for file in self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(self.schema.names)

    def bad_row(self, problem: Problem) -> str:
        """What is wrong with a row, in words."""
        return (
            f"{self.name}: row {problem.loan}, {problem.field}: expected {problem.expected}, "
            f"given {problem.given}"
        )

    def parts(self, progress: Progress | None = None) -> Iterator[Part]:
        """Read the book from its start, in parts of at most 65,536 records.

        `progress` is called with the fraction read (0 to 1). Raises BookError for a file that is
        cut off or damaged. May be called again for another pass.
        """
        first, before = 1, 0

        def at_byte(position: int) -> None:
            if progress is not None:
                progress(min(1.0, (before + position) / max(self.bytes_total, 1)))

        for file in self.files:
            for part in file.parts(first, at_byte):
                first += part.size
                yield Part(self._conform(part.records), part.numbers, part.problems)
            before += file.path.stat().st_size
            at_byte(0)

    def _conform(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Another file's columns in the first file's order, and of the types common to all."""
        if records.schema == self.schema:
            return records
        try:
            columns = [
                records.column(field.name).cast(field.type, safe=False) for field in self.schema
            ]
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise BookError(f"{self.name}: expected files of the same types: {reason}") from None
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def open_book(spec: str | Path) -> Book:
    """Open a book: a CSV or Parquet file, a folder of them, or a glob; raises BookError."""
    name = shown(spec)
    try:
        paths = _paths(spec)
        files = tuple(_open_file(path) for path in paths)
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise BookError(f"{name}: can't be read: {error.strerror or error}") from None
    schema = _common_schema(files)
    if not any(file.has_rows for file in files):
        raise BookError(f"{name}: expected loans, got column names and no row")
    return Book(name, files, schema, size)


def _paths(spec: str | Path) -> list[Path]:
    name = shown(spec)
    if not str(spec):
        raise BookError("expected a file, a folder or a glob, got an empty name")
    if "\x00" in str(spec):
        raise BookError(f"{name!r}: no such file")
    path = Path(spec)
    if path.is_dir():
        paths = sorted(
            entry
            for entry in path.iterdir()
            if entry.name.lower().endswith(_ENDINGS)
            and not entry.name.startswith((".", "_"))
            and entry.is_file()
        )
        if not paths:
            raise BookError(
                f"{name}: expected {', '.join(_ENDINGS)} files in this folder, got none"
            )
        return paths
    if not path.exists() and glob.has_magic(str(spec)):
        # Path.glob takes no absolute patterns
        found = map(Path, glob.glob(str(spec), recursive=True))  # noqa: PTH207
        paths = sorted(path for path in found if path.is_file())
        if not paths:
            raise BookError(f"{name}: no file matches")
        return paths
    if not path.exists():
        raise BookError(f"{name}: no such file")
    return [path]


def _open_file(path: Path) -> TableFile:
    with path.open("rb") as file:
        magic = file.read(len(PARQUET_MAGIC))
    table: TableFile = ParquetFile(path) if magic == PARQUET_MAGIC else CsvFile(path)
    twice = [column for column, count in Counter(table.schema.names).items() if count > 1]
    if twice:
        if any(map(is_number, twice)):
            raise without_header(shown(path), table.schema.names)
        raise BookError(
            f"{shown(path)}: expected each column once, got more than one "
            f"{', '.join(map(show_column, twice))}"
        )
    return table


def _common_schema(files: tuple[TableFile, ...]) -> pa.Schema:
    first = files[0]
    schema = first.schema
    for file in files[1:]:
        if type(file) is not type(first):
            raise BookError(
                f"{shown(file.path)}: expected the format of {shown(first.path)}: a book is CSV or "
                "Parquet, not both"
            )
    for file in files[1:]:
        absent = [name for name in first.schema.names if name not in file.schema.names]
        added = [name for name in file.schema.names if name not in first.schema.names]
        if absent or added:
            differences = [f"no {show_column(name)}" for name in absent]
            differences += [f"also {show_column(name)}" for name in added]
            raise BookError(
                f"{shown(file.path)}: expected the columns of {shown(first.path)}, "
                f"got {', '.join(differences)}"
            )
        try:
            schema = pa.unify_schemas([schema, file.schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise BookError(
                f"{shown(file.path)}: expected the types of {shown(first.path)}: "
                f"{str(error).splitlines()[0]}"
            ) from None
    return schema


def without_header(name: str, columns: Sequence[str]) -> BookError:
    """What is wrong with a table whose first line holds values."""
    return BookError(
        f"{name}: expected a first line of column names, got what looks like a row of values: "
        f"{', '.join(map(show_column, columns[:3]))}, …"
    )


def is_number(name: str) -> bool:
    """Whether a column's name is a number, and so hardly a name."""
    try:
        return parse_number(name) is not None
    except ValueError:
        return False


def show_column(name: str) -> str:
    """A column's name as an error says it: quoted where it would not be seen."""
    seen = name and name == name.strip() and name.isprintable()
    return show_name(name) if seen else ascii(name)
