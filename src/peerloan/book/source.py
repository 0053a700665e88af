"""Opening a book: CSV (also gzipped) or Parquet; a file, a folder or a glob; read part by part."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from peerloan.book.common_type import common_type
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

    CSV columns are of type binary. Where files hold a column in different types, the schema's is
    one that is common to all, and each part keeps that of its file: no value is changed by reading.
    `bytes_total` is the size of the files.
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

    @property
    def is_text(self) -> bool:
        """Whether columns of bytes hold the text of cells, as those of CSV do."""
        return all(file.is_text for file in self.files)

    def mixed(self) -> list[str]:
        """The columns that not all files hold in one type."""
        return [
            field.name
            for field in self.schema
            if any(file.schema.field(field.name).type != field.type for file in self.files)
        ]

    def kinds_of(self, name: str) -> str:
        """The types of a column, each with the first file that has it, in words."""
        kinds: dict[str, str] = {}
        for file in self.files:
            kinds.setdefault(str(file.schema.field(name).type), shown(file.path))
        return " and ".join(f"{kind} in {path}" for kind, path in kinds.items())

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
                records = part.records.select(self.schema.names)
                yield Part(records, part.numbers, part.problems, file.path)
            before += file.path.stat().st_size
            at_byte(0)


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
    return pa.schema([_common_field(field.name, files) for field in first.schema])


def _common_field(name: str, files: tuple[TableFile, ...]) -> pa.Field:
    """A column of a type that may hold its values in all files."""
    field: pa.Field = files[0].schema.field(name)
    since = files[0]
    for file in files[1:]:
        other = file.schema.field(name)
        if (kind := common_type(field.type, other.type)) is None:
            raise BookError(
                f"{shown(file.path)}: column {show_column(name)}: expected a type that goes with "
                f"{field.type}, as in {shown(since.path)}, got {other.type}"
            )
        if kind != field.type:
            field, since = field.with_type(kind), file
        field = field.with_nullable(field.nullable or other.nullable)
    return field


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
