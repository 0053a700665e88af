"""Text that is no UTF-8: what it probably is, where it stands, and how to convert it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from peerloan.loan.text import show_given

_WESTERN = "WINDOWS-1252"
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LOOKED_AT = 400


class Misencoded(NamedTuple):
    """A value that is no UTF-8, with its data row and column, counted from 1."""

    value: bytes
    row: int
    column: int

    @property
    def shown(self) -> str:
        """The value as people may recognise it."""
        return show_bytes(self.value)

    def words(self, names: Sequence[str]) -> str:
        """Where a value stands that is no UTF-8, and what it is."""
        column = names[self.column - 1] if self.column <= len(names) else str(self.column)
        return f"row {self.row}, column {column}, is no UTF-8: {self.shown}"


def guess_encoding(head: bytes) -> str | None:
    """The encoding that a file's first bytes show, if it is UTF-16 or UTF-32; else None.

    Without a byte order mark, text that is mostly ASCII shows it by its zeros.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    head = head[:_LOOKED_AT]
    for width, places in ((4, {"UTF-32LE": 0, "UTF-32BE": 3}), (2, {"UTF-16LE": 0, "UTF-16BE": 1})):
        units = len(head) // width
        for encoding, place in places.items():
            letters = [head[i * width + place] for i in range(units)]
            zeros = head[: units * width].count(0)
            if units > 1 and all(letters) and zeros >= 0.9 * units * (width - 1):
                return encoding
    return None


def not_utf8(text: bytes, is_end: bool) -> Misencoded | None:
    """The first cell of a CSV's rows that is no UTF-8.

    Unless it `is_end` of the file, the last letter may be cut.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text, is_end)
    except UnicodeDecodeError:
        pass
    else:
        return None
    # Latin-1 takes any byte, and gives it back.
    rows = csv.reader(io.StringIO(text.decode("latin-1"), newline=""))
    number = 0
    try:
        for row in rows:
            number += bool(row)
            for column, cell in enumerate(row, 1):
                value = cell.encode("latin-1")
                if not is_utf8(value):
                    return Misencoded(value, number, column)
    except csv.Error:
        return None
    return None


def show_bytes(value: bytes) -> str:
    """Bytes that are no UTF-8, as text if they look like Windows-1252."""
    text = _western(value)
    return show_given(value) if text is None else f"{show_given(text)} (Windows-1252, not UTF-8)"


def convert(value: bytes) -> str:
    """What to do about a file with such a value."""
    if _western(value) is None:
        return "convert it to UTF-8"
    return f"if that reads well, convert it: iconv -f {_WESTERN} -t UTF-8"


def _western(value: bytes) -> str | None:
    """The text if it looks like Windows-1252: letters, and none of it is UTF-8 beyond ASCII."""
    ascii_letters = value.decode("ascii", "ignore")
    if not re.search("[A-Za-z]", ascii_letters) or value.decode("utf-8", "ignore") != ascii_letters:
        return None
    try:
        return value.decode("cp1252")
    except UnicodeDecodeError:
        return None


def is_utf8(value: bytes) -> bool:
    """Whether bytes are text in UTF-8."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
