"""Check the texts of loans, and parse their numbers."""

from __future__ import annotations

import math
import re

from peerloan.formatting import has_control, show_value

MAX_TEXT = 200
TEXT_EXPECTED = f"text of 1 to {MAX_TEXT} characters without control characters"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# How other programs spell a missing number. A missing text is only an empty cell: NONE or NA may be
# a level.
MISSING_NUMBERS = frozenset({"", "na", "n/a", "nan", "null", "none"})
# How other programs spell a missing text, in lower case. NONE is not among them: it is a common
# level.
_MISSING_TEXTS = frozenset(
    {"na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "(null)", "missing", "?", ".", "-"}
)


def text_fault(text: str) -> str | None:
    """The reason why a text is not allowed as a name or a level; None if it is allowed."""
    if not text:
        return "expected text, got an empty one"
    if len(text) > MAX_TEXT:
        return f"expected at most {MAX_TEXT} characters, got {len(text)}"
    if has_control(text):
        return f"expected text without control characters, got {show_value(text)}"
    return None


def stands_for_missing(text: str) -> bool:
    """Whether a text is a spelling of a missing value in other programs: NA, NULL, NaN, …"""
    return text.strip().lower() in _MISSING_TEXTS


def parse_whole(digits: str) -> float:
    """Parse the digits of a JSON integer; from 400 digits on the result is an infinite double.

    Python's `int` raises ValueError for thousands of digits; this function does not.
    """
    return int(digits) if len(digits) < 400 else float(digits)


def parse_number(text: str) -> float | None:
    """Parse a number: decimal or exponent notation, a decimal point, no thousands separators.

    Returns None for a spelling of a missing number; raises ValueError for anything else.
    """
    stripped = text.strip()
    if stripped.lower() in MISSING_NUMBERS:
        return None
    if not _NUMBER.fullmatch(stripped):
        raise ValueError(text)
    number = float(stripped)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
