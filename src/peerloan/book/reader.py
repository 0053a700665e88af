"""Open a book (a file, a folder or a glob, of any format) and read it part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from peerloan.book.common_type import common_type
from peerloan.book.formats.arrow_reader import FILE_MAGIC as ARROW_MAGIC
from peerloan.book.formats.arrow_reader import STREAM_MAGIC, ArrowFile
from peerloan.book.formats.csv_reader import CsvFile
from peerloan.book.formats.json_lines_reader import ENDINGS as JSON_ENDINGS
from peerloan.book.formats.json_lines_reader import JsonLinesFile, is_json_lines
from peerloan.book.formats.parquet_reader import MAGIC as PARQUET_MAGIC
from peerloan.book.formats.parquet_reader import ParquetFile
from peerloan.book.formats.text_stream import open_stream
from peerloan.book.header import is_number, show_column, without_header
from peerloan.book.partitions import PartitionedFile, partitions_of
from peerloan.book.parts import BookError, EmptyFileError, Part, Progress, TableFile, show_path
from peerloan.book.paths import NO_ROW, NO_TABLE, OTHER_FORMAT, BookFiles, list_files
from peerloan.loan.validation import Problem


@dataclass(frozen=True)
class Book:
    """An opened book: its name as the user gave it, its files and its schema.

    CSV columns have type binary. If files hold a column in different types, the schema has a
    common type, but each part keeps the type of its file: reading changes no value. `bytes_total`
    is the size of all files. `notes` are sentences on the files that were read or skipped.
    """

    name: str
    files: tuple[TableFile, ...]
    schema: pa.Schema
    bytes_total: int
    notes: tuple[str, ...] = ()

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
        """Whether binary columns contain the text of cells, as in CSV."""
        return all(file.format == "CSV" for file in self.files)

    def mixed(self) -> list[str]:
        """The columns whose type differs between files."""
        return [
            field.name
            for field in self.schema
            if any(file.schema.field(field.name).type != field.type for file in self.files)
        ]

    def describe_types(self, name: str) -> str:
        """Describe the types of a column, each with the first file that has it."""
        kinds: dict[str, str] = {}
        for file in self.files:
            kinds.setdefault(str(file.schema.field(name).type), show_path(file.path))
        return " and ".join(f"{kind} in {path}" for kind, path in kinds.items())

    def bad_row(self, problem: Problem) -> str:
        """Describe a problem of a row."""
        return (
            f"{self.name}: row {problem.loan}, {problem.field}: expected {problem.expected}, "
            f"given {problem.given}"
        )

    def parts(self, progress: Progress | None = None) -> Iterator[Part]:
        """Read the book from its start, in parts of at most 65,536 records.

        `progress` is called with the fraction read (0 to 1). Raises BookError for a truncated or
        damaged file. Each call reads the book anew.
        """
        first, bytes_before = 1, 0

        def at_byte(position: int) -> None:
            if progress is not None:
                progress(min(1.0, (bytes_before + position) / max(self.bytes_total, 1)))

        for file in self.files:
            for part in file.parts(first, at_byte):
                first += part.size
                records = part.records.select(self.schema.names)
                yield Part(records, part.numbers, part.problems, file.path)
            bytes_before += file.path.stat().st_size
            at_byte(0)


def open_book(spec: str | Path) -> Book:
    """Open a book: a file, a folder of files, or a glob; raises BookError.

    Files without rows are skipped if other files have some. The book's notes name them and what
    else was skipped.
    """
    name = show_path(spec)
    try:
        listing = list_files(spec)
        files = _open_files(listing, name)
        size = sum(file.path.stat().st_size for file in files)
    except OSError as error:
        # Name the file of the folder that can't be read.
        which = name if error.filename is None else show_path(error.filename)
        raise BookError(f"{which}: can't be read: {error.strerror or error}") from None
    schema = _common_schema(files)
    notes = (*listing.notes(len(files)), *_notes_of(files, listing))
    return Book(name, files, schema, size, notes)


def _open_files(listing: BookFiles, name: str) -> tuple[TableFile, ...]:
    """Open the listed files that have rows; skipped ones are recorded in the listing."""
    files, without_ending = [], []
    empty = ""
    for path in listing.files:
        if not listing.is_table(path):
            without_ending.append(path)
            continue
        try:
            file = _open_file(path)
        except EmptyFileError as error:
            if listing.root is None:
                raise
            empty = str(error)
        else:
            if file.has_rows:
                files.append(file)
                continue
            empty = f"{name}: expected loans, got column names and no row"
        listing.pass_over(path, NO_ROW)
    # Files without a known ending are read only if they have the format of the others.
    for path in without_ending:
        kind = _evident_format(path)
        if kind is None:
            listing.pass_over(path, NO_TABLE)
        elif files and files[0].format != kind.format:
            listing.pass_over(path, OTHER_FORMAT)
        elif (file := _open_file(path)).has_rows:
            files.append(file)
        else:
            listing.pass_over(path, NO_ROW)
    if not files:
        if listing.root is None:
            raise BookError(empty)
        raise listing.refusal(name)
    files.sort(key=lambda file: file.path)
    _share_keys(files)
    return tuple(_with_partitions(file, listing) for file in files)


def _share_keys(files: Sequence[TableFile]) -> None:
    """Add to each JSON lines file the keys of the others; their values are missing in its rows."""
    lines = [file for file in files if isinstance(file, JsonLinesFile)]
    names = list(dict.fromkeys(name for file in lines for name in file.schema.names))
    for file in lines:
        file.add_columns(names)


def _with_partitions(file: TableFile, listing: BookFiles) -> TableFile:
    """Add the partition columns of the file's folders, if there are any."""
    partitions = {} if listing.root is None else partitions_of(file.path, listing.root)
    return PartitionedFile(file, partitions) if partitions else file


def _notes_of(files: Sequence[TableFile], listing: BookFiles) -> Iterator[str]:
    """The distinct notes of the files; in a folder or glob, each with the files it is about."""
    paths: dict[str, list[Path]] = {}
    for file in files:
        for note in file.notes:
            paths.setdefault(note, []).append(file.path)
    for note, noted in paths.items():
        yield note if listing.root is None else f"{note} (in {listing.names(noted)})"


def _evident_format(path: Path) -> type[ParquetFile | ArrowFile | JsonLinesFile] | None:
    """Recognise a file's format by its content; None for CSV and anything else."""
    with path.open("rb") as file:
        head = file.read(len(ARROW_MAGIC))
    if head.startswith(PARQUET_MAGIC):
        return ParquetFile
    if head.startswith((ARROW_MAGIC, STREAM_MAGIC)):
        return ArrowFile
    with open_stream(path) as (stream, _):
        return JsonLinesFile if is_json_lines(stream) else None


def _open_file(path: Path) -> TableFile:
    kind = _evident_format(path)
    if kind is None and path.name.lower().endswith(JSON_ENDINGS):
        kind = JsonLinesFile
    table: TableFile = (kind or CsvFile)(path)
    repeated = [column for column, count in Counter(table.schema.names).items() if count > 1]
    if repeated:
        if any(map(is_number, repeated)):
            raise without_header(show_path(path), table.schema.names)
        raise BookError(
            f"{show_path(path)}: expected each column once, got more than one "
            f"{', '.join(map(show_column, repeated))}"
        )
    return table


def _common_schema(files: tuple[TableFile, ...]) -> pa.Schema:
    first = files[0]
    for file in files[1:]:
        if file.format != first.format:
            raise BookError(
                f"{show_path(file.path)}: expected {first.format}, the format of "
                f"{show_path(first.path)}, got {file.format}: a book has one format"
            )
    for file in files[1:]:
        absent = [name for name in first.schema.names if name not in file.schema.names]
        added = [name for name in file.schema.names if name not in first.schema.names]
        if absent or added:
            differences = [f"no {show_column(name)}" for name in absent]
            differences += [f"also {show_column(name)}" for name in added]
            raise BookError(
                f"{show_path(file.path)}: expected the columns of {show_path(first.path)}, "
                f"got {', '.join(differences)}"
            )
    return pa.schema([_common_field(field.name, files) for field in first.schema])


def _common_field(name: str, files: tuple[TableFile, ...]) -> pa.Field:
    """A column's field with a type that is common to all files."""
    field: pa.Field = files[0].schema.field(name)
    since = files[0]
    for file in files[1:]:
        other = file.schema.field(name)
        if (kind := common_type(field.type, other.type)) is None:
            raise BookError(
                f"{show_path(file.path)}: column {show_column(name)}: expected a type compatible "
                f"with {field.type}, as in {show_path(since.path)}, got {other.type}"
            )
        if kind != field.type:
            field, since = field.with_type(kind), file
        field = field.with_nullable(field.nullable or other.nullable)
    return field
