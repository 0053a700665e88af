"""Escape cells that a spreadsheet program would run as a formula.

See OWASP, "CSV Injection": a program that opens a CSV file may evaluate a cell.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

# Each full-width sign is three bytes in UTF-8; an alternation, since Arrow matches bytes here.
_FORMULA = r"^([=+\-@\t\r\n]|＝|＋|－|＠)"
_NUMBER = r"^[+\-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?$"
_IS_FORMULA, _IS_NUMBER = re.compile(_FORMULA), re.compile(_NUMBER.replace("$", r"\Z"))


def escape_formulas(cells: pa.Array) -> pa.Array:
    """Put an apostrophe before each cell (of bytes) that could be a formula; numbers stay."""
    formulas = pc.match_substring_regex(cells, _FORMULA)
    if not pc.any(formulas).as_py():
        return cells
    formulas = pc.and_not(formulas, pc.match_substring_regex(cells, _NUMBER))
    return pc.if_else(formulas, pc.binary_join_element_wise(b"'", cells, b""), cells)


def escape_formula(text: str) -> str:
    """Put an apostrophe before a text that could be a formula; a number stays."""
    return f"'{text}" if _IS_FORMULA.match(text) and not _IS_NUMBER.match(text) else text
