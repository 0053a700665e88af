"""Read the header of a CSV file: encoding, separator and column names."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from peerloan.book.formats.encodings import convert, is_utf8, not_utf8, show_bytes
from peerloan.book.formats.foreign_files import EXPECTED, expect_text
from peerloan.book.parts import BookError, EmptyFileError, check_column_count
from peerloan.formatting import show_value

HEADER_LIMIT = 1 << 20
_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")
# The separator line that Excel writes above the header.
_SEPARATOR_LINE = re.compile(rb'"?sep=(\\t|[^\r\n"])?"?[,;\t ]*(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
_SEPARATORS = {b"\t": "tabs", b"\\t": "tabs", b" ": "spaces"}
_LOOKED_AT = 20
# The first rows, by which the width of the table is determined.
_ROWS, _ROWS_BYTES = 100, 1 << 16


@dataclass(frozen=True)
class Header:
    """The column names of a CSV file, empty ones included.

    `start` is the byte offset of the first row, `line` the line number of the header.
    """

    names: list[str]
    start: int
    line: int
    notes: tuple[str, ...]


def read_header(head: bytes, where: str) -> Header:
    """Parse the header from a file's first bytes (at most HEADER_LIMIT); raises BookError.

    `where` is the file's name for messages.
    """
    expect_text(head, where)
    start = len(_BOM) if head.startswith(_BOM) else 0
    if not head[start:].strip(b"\r\n"):
        raise EmptyFileError(f"{where}: expected a table of loans, got an empty file")
    notes = []
    if separator := _SEPARATOR_LINE.match(head, start):
        _expect_comma(separator[1] or b"", where)
        notes.append("the first line, sep=, names the separator and was skipped")
        start = separator.end()
    names, end, line = _names(head, start, where)
    check_column_count(len(names), where)
    names = _as_wide(names, head[end : end + _ROWS_BYTES])
    check_column_count(len(names), where)
    if fault := not_utf8(head[end:], len(head) < HEADER_LIMIT):
        notes.append(
            f"{fault.words(names)}; it is a wrong value in a field, unchanged in other columns; "
            f"{convert(fault.value)}"
        )
    return Header(names, end, line, tuple(notes))


def read_lines(head: bytes) -> list[tuple[int, str]]:
    """The first lines of a text with their line numbers, without blank ones."""
    start = len(_BOM) if head.startswith(_BOM) else 0
    lines = ((i, match[0].strip()) for i, match in enumerate(_LINE.finditer(head, start), 1))
    return [(i, line.decode("utf-8", "replace")) for i, line in lines if line][:_LOOKED_AT]


def _expect_comma(separator: bytes, where: str) -> None:
    if separator != b",":
        words = _SEPARATORS.get(separator) or show_value(separator.decode("utf-8", "replace"))
        raise BookError(
            f"{where}: expected columns separated by ',', got {words} in the first line, sep=; "
            "save the table with commas and decimal points, and without that line"
        )


def _names(head: bytes, start: int, where: str) -> tuple[list[str], int, int]:
    """The header's cells, the byte offset behind it, and its line number."""
    position = start

    def lines() -> Iterator[str]:
        nonlocal position
        for line in _LINE.finditer(head, start):
            position = line.end()
            # Decodes any bytes; a name that is not UTF-8 is refused below, with its column.
            yield line[0].decode("utf-8", "surrogateescape")

    reader = csv.reader(lines())
    try:
        names = next((row for row in reader if row), [])
    except csv.Error as error:
        raise BookError(f"{where}: expected a line of column names, got none: {error}") from None
    if not names:
        raise EmptyFileError(f"{where}: expected a table of loans, got an empty file")
    if position == len(head) and "\n" in names[-1]:
        raise BookError(f"{where}: expected a closing quotation mark in the column names, got none")
    line = reader.line_num + (start > len(_BOM))
    if position == HEADER_LIMIT and b"\x00" not in head:
        raise BookError(
            f"{where}: expected a line of column names of less than {HEADER_LIMIT >> 20} MB, got a "
            f"longer one: {show_value(head[:20])}"
        )
    if "\x00" in "".join(names):
        raise BookError(f"{where}: expected {EXPECTED}, got {show_value(head[:20])}")
    for column, name in enumerate(names, 1):
        value = name.encode("utf-8", "surrogateescape")
        if not is_utf8(value):
            raise BookError(
                f"{where}: expected column names in UTF-8, got {show_bytes(value)} in column "
                f"{column} of line {line}; {convert(value)}"
            )
    return names, position, line


def _as_wide(names: list[str], text: bytes) -> list[str]:
    """Pad or cut the names to the width of the first rows, if only empty cells make the difference.

    Some programs end each row, but not the header, with a comma, or the other way round.
    """
    reader = csv.reader(io.StringIO(text.decode("latin-1"), newline=""))
    try:
        rows = [row for row in itertools.islice(reader, _ROWS) if row]
    except csv.Error:
        return names
    if len(text) == _ROWS_BYTES:
        rows = rows[:-1]  # the last row may be incomplete
    if len({len(row) for row in rows}) != 1:
        return names
    width, width_named = len(rows[0]), len(names)
    while width_named and not names[width_named - 1].strip():
        width_named -= 1
    if width > len(names) and not any("".join(row[len(names) :]) for row in rows):
        return names + [""] * (width - len(names))
    return names[:width] if width_named <= width < len(names) else names
