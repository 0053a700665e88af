"""Cells that a spreadsheet would take for a formula, and how they become text.

After OWASP, "CSV Injection": a program that opens a CSV file may compute what a cell holds.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

# Of the full-width signs each is three bytes, which Arrow compares as bytes.
_FORMULA = r"^([=+\-@\t\r\n]|＝|＋|－|＠)"
_NUMBER = r"^[+\-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+\-]?[0-9]+)?$"
_IS_FORMULA, _IS_NUMBER = re.compile(_FORMULA), re.compile(_NUMBER.replace("$", r"\Z"))


def harmless_cells(cells: pa.Array) -> pa.Array:
    """Cells of bytes, those that a formula could begin with an apostrophe before; numbers stay."""
    formulas = pc.match_substring_regex(cells, _FORMULA)
    if not pc.any(formulas).as_py():
        return cells
    formulas = pc.and_not(formulas, pc.match_substring_regex(cells, _NUMBER))
    return pc.if_else(formulas, pc.binary_join_element_wise(b"'", cells, b""), cells)


def harmless_text(text: str) -> str:
    """The same of one cell."""
    return f"'{text}" if _IS_FORMULA.match(text) and not _IS_NUMBER.match(text) else text
