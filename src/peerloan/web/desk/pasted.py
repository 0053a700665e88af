"""Read one pasted loan: JSON, a Python dictionary, a row of a table, or lines `name: value`.

Values stay as they are pasted, mostly texts: the lenient reader says what they mean.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from peerloan.errors import PeerLoanError
from peerloan.formatting import plural, show_value
from peerloan.loan import Definition, find_name
from peerloan.web.desk.python_literal import parse_literal
from peerloan.web.http.problems import RequestError
from peerloan.web.http.request_body import decode

MAX_PASTED_CHARACTERS = 100_000
_DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma"}
_LINE = re.compile(r"\s*(?P<name>[^:=\t]*[^:=\t\s])[^\S\t]*[:=\t](?P<value>.*)")
_QUOTED = re.compile(r"""(["'])(.*)\1""")
_SEVERAL = "For several loans, use the API or `peerloan score`."


class PasteError(PeerLoanError, ValueError):
    """A pasted text that is not one loan; the message is for the page."""


def read_pasted(text: str, definition: Definition) -> dict[str, Any]:
    """Return the record in a pasted text. Raises PasteError that says what was recognised."""
    if not text.strip():
        raise PasteError("Nothing was pasted. Paste one loan, for example its JSON.")
    if len(text) > MAX_PASTED_CHARACTERS:
        raise PasteError(
            f"Expected one loan with at most {MAX_PASTED_CHARACTERS:,} characters, "
            f"given {len(text):,} characters."
        )
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        return _one_loan(_read_braces(text))
    for read in (_read_table, _read_lines, _read_row):
        if (record := read(text, definition)) is not None:
            return record
    raise PasteError(
        "This is neither JSON, nor a Python dictionary, nor a row of a table with "
        f"{plural(len(definition.fields), 'cell')} or a header, nor lines such as 'name: value'."
    )


def _read_braces(text: str) -> Any:
    """Read JSON or a Python literal."""
    try:
        return decode(text.encode())
    except (RequestError, UnicodeEncodeError) as error:
        if isinstance(error, RequestError) and error.problems:
            raise PasteError(f"{error.detail}.") from None
    try:
        return parse_literal(text)
    except ValueError as error:
        raise PasteError(f"This begins like JSON or a Python dictionary, but {error}.") from None


def _one_loan(loan: Any) -> dict[str, Any]:
    """Return a loan; it, and its values, may be in a list or a dictionary of one element."""
    if isinstance(loan, list) and len(loan) == 1:
        loan = loan[0]
    if not isinstance(loan, dict) or not all(isinstance(name, str) for name in loan):
        raise PasteError(
            f"Expected one loan, with names and values in braces, given {show_value(loan)}."
        )
    return {name: _one_value(name, value) for name, value in loan.items()}


def _one_value(name: str, value: Any) -> Any:
    if not isinstance(value, list | dict):
        return value
    if not value:
        kind = "list" if isinstance(value, list) else "dictionary"
        raise PasteError(f"Expected one value of {show_value(name)}, given an empty {kind}.")
    if len(value) > 1:
        given = f"{len(value)} values of {show_value(name)}"
        raise PasteError(f"Expected one loan, given {given}. {_SEVERAL}")
    return next(iter(value.values() if isinstance(value, dict) else value))


def _read_table(text: str, definition: Definition) -> dict[str, Any] | None:
    """Read a header and one row; None if the first line is no header."""
    for delimiter, word in _DELIMITERS.items():
        header, *rows = _cells(text, delimiter) or [[]]
        if len(header) < 2 or not _are_names(header, definition):
            continue
        if len(rows) != 1:
            given = plural(len(rows), "row")
            end = f" {_SEVERAL}" if rows else ""
            raise PasteError(f"Expected a header and one row, given a header and {given}.{end}")
        if len(rows[0]) != len(header):
            raise PasteError(
                f"This is a header and a row, separated by {word}s: expected as many cells as "
                f"names, given {plural(len(header), 'name')} and {plural(len(rows[0]), 'cell')}."
            )
        # A table that was saved with its index has a column without a name.
        return _record((name, cell) for name, cell in zip(header, rows[0], strict=True) if name)
    return None


def _read_row(text: str, definition: Definition) -> dict[str, Any] | None:
    """Read a row without a header, in the order of the fields; None if this is not one line."""
    wrong = ""
    for delimiter, word in _DELIMITERS.items():
        rows = _cells(text, delimiter)
        if len(rows) != 1 or len(rows[0]) < 2:
            continue
        if len(rows[0]) == len(definition.names):
            return _record(zip(definition.names, rows[0], strict=True))
        wrong = wrong or f"{plural(len(rows[0]), 'cell')}, separated by {word}s"
    if wrong:
        fields = plural(len(definition.names), "field")
        raise PasteError(
            f"This is a row without a header: expected a cell for each of the {fields} in the "
            f"order of the form, given {wrong}. Add a line with the names."
        )
    return None


def _read_lines(text: str, definition: Definition) -> dict[str, Any] | None:
    """Read lines `name: value`; None if most of them do not begin with a name of the loan."""
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    parsed = [_LINE.fullmatch(line) for _, line in lines]
    names = ["" if match is None else _bare(match["name"]) for match in parsed]
    if not _are_names(names, definition):
        return None
    values = []
    for (number, line), match in zip(lines, parsed, strict=True):
        if match is None:
            raise PasteError(
                f"These are lines of names and values: expected a ':', '=' or tab in line "
                f"{number}, given {show_value(line)}."
            )
        values.append(_bare(match["value"]))
    return _record(zip(names, values, strict=True))


def _record(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise PasteError(f"Expected each name once, given {show_value(name)} twice.")
        record[name] = value
    return record


def _are_names(texts: Sequence[str], definition: Definition) -> bool:
    """Whether more than half of the texts are names of a loan."""
    return 2 * sum(find_name(definition, text) is not None for text in texts) > len(texts)


def _cells(text: str, delimiter: str) -> list[list[str]]:
    """Return the stripped cells of the lines of a table, without empty lines."""
    try:
        rows = list(csv.reader(io.StringIO(text.strip("\ufeff\r\n")), delimiter=delimiter))
    except csv.Error:
        return []
    return [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]


def _bare(text: str) -> str:
    """Return a name or value without the comma and the quotes that JSON and Python put around."""
    text = text.strip().removesuffix(",").strip()
    quoted = _QUOTED.fullmatch(text)
    return quoted[2] if quoted else text
