"""Check, parse and format text and numbers."""

from __future__ import annotations

import math
import re

from peerloan.formatting import FORBIDDEN, show_value

MAX_TEXT = 200
TEXT_EXPECTED = f"text of 1 to {MAX_TEXT} characters without control characters"
# An allowed character, for patterns in JSON Schema.
PLAIN_LETTER = "[^\\u0000-\\u001f\\u007f-\\u009f]"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# How other programs spell a missing number. A missing text is only an empty cell: NONE or NA may be
# a level.
MISSING_NUMBERS = frozenset({"", "na", "n/a", "nan", "null", "none"})
# How other programs spell a missing text, in lower case. NONE is not among them: it is a common
# level.
_MISSING_TEXTS = frozenset(
    {"na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "(null)", "missing", "?", ".", "-"}
)


def has_control(text: str) -> bool:
    """Whether a text holds control characters or lone surrogates."""
    return FORBIDDEN.search(text) is not None


def text_fault(text: str) -> str | None:
    """Why a text is not allowed as a name or a level, or None if it is."""
    if not text:
        return "expected text, got an empty one"
    if len(text) > MAX_TEXT:
        return f"expected at most {MAX_TEXT} characters, got {len(text)}"
    if FORBIDDEN.search(text):
        return f"expected text without control characters, got {show_value(text)}"
    return None


def stands_for_missing(text: str) -> bool:
    """Whether a text is a spelling of a missing value in other programs: NA, NULL, NaN, …"""
    return text.strip().lower() in _MISSING_TEXTS


def parse_whole(digits: str) -> float:
    """Parse digits as an integer, or as a double from 400 digits on (infinite if too large)."""
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
