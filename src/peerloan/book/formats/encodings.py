"""Describe text that is not UTF-8: where it is, its probable encoding, how to convert it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from peerloan.formatting import show_value

_WESTERN = "WINDOWS-1252"
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LOOKED_AT = 400


class Misencoded(NamedTuple):
    """A value that is not UTF-8, with its data row and column (from 1)."""

    value: bytes
    row: int
    column: int

    @property
    def shown(self) -> str:
        """The value as readable text."""
        return show_bytes(self.value)

    def words(self, names: Sequence[str]) -> str:
        """Describe where the value is, and what it is."""
        column = names[self.column - 1] if self.column <= len(names) else str(self.column)
        return f"row {self.row}, column {column}, is not UTF-8: {self.shown}"


def guess_encoding(head: bytes) -> str | None:
    """Recognise UTF-16 and UTF-32 by a file's first bytes; None for anything else.

    Without a byte order mark, the zero bytes of mostly ASCII text show the encoding.
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
    """Find the first cell of CSV rows that is not UTF-8; None if all are.

    Unless the text `is_end` of the file, an incomplete last character is allowed.
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text, is_end)
    except UnicodeDecodeError:
        pass
    else:
        return None
    # Latin-1 decodes any byte, and encodes it back.
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
    """Show bytes that are not UTF-8, as text if they look like Windows-1252."""
    text = _western(value)
    return show_value(value) if text is None else f"{show_value(text)} (Windows-1252, not UTF-8)"


def convert(value: bytes) -> str:
    """Advice on how to convert a file with such a value."""
    if _western(value) is None:
        return "convert it to UTF-8"
    return f"if that reads well, convert it: iconv -f {_WESTERN} -t UTF-8"


def _western(value: bytes) -> str | None:
    """Decode as Windows-1252 if it looks like it: has letters, and no UTF-8 beyond ASCII."""
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
