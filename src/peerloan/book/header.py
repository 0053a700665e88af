"""Check a book's header for usual mistakes, and format column names for messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peerloan.book.parts import BookError, TableFile, show_path
from peerloan.loan.text import parse_number
from peerloan.loan.validation import show_name

_SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'", ":": "':'", " ": "spaces"}


def check_separator(name: str, file: TableFile, needed: Sequence[str]) -> None:
    """Raise BookError if the needed columns appear with another separator, or in a later line."""
    lines = file.first_lines() or [(1, ",".join(file.schema.names))]
    present = _count_named(needed, file.schema.names)
    for number, line in lines:
        for separator, words in _SEPARATORS.items():
            named = _count_named(needed, line.split(separator))
            if named <= present or named * 2 < len(needed):
                continue
            separated = f"the columns are separated by {words}, expected ','"
            if number == lines[0][0]:
                raise BookError(f"{name}: {separated}")
            raise BookError(
                f"{show_path(file.path)}: expected the column names in line "
                f"{lines[0][0]}, got them in line {number}: delete the lines above them"
                f"{'' if separator == ',' else f'; {separated}'}"
            )


def check_header(name: str, columns: Sequence[str]) -> None:
    """Raise BookError if the column names look like a row of values."""
    numbers = sum(is_number(column) for column in columns)
    if numbers * 4 >= len(columns):
        raise without_header(name, columns)


def without_header(name: str, columns: Sequence[str]) -> BookError:
    """The error for a table whose first line has values instead of column names."""
    return BookError(
        f"{name}: expected a first line of column names, got what looks like a row of values: "
        f"{', '.join(map(show_column, columns[:3]))}, …"
    )


def is_number(name: str) -> bool:
    """Whether a column name is a number, and so probably a value."""
    try:
        return parse_number(name) is not None
    except ValueError:
        return False


def show_column(name: str) -> str:
    """A column name for an error message: quoted if it would be invisible or hard to see."""
    is_visible = name and name == name.strip() and name.isprintable()
    return show_name(name) if is_visible else ascii(name)


def _count_named(needed: Sequence[str], cells: Iterable[str]) -> int:
    """Count the needed columns among a line's cells, quoted or not."""
    return len({cell.strip().strip("'\"") for cell in cells}.intersection(needed))
