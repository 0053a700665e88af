"""Check, parse and format text and numbers."""

from __future__ import annotations

import json
import math
import re

MAX_TEXT = 200
TEXT_EXPECTED = f"text of 1 to {MAX_TEXT} characters without control characters"
# C0 and C1 control characters and lone surrogates: not every database, file format and terminal
# keeps them.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
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
    return _FORBIDDEN.search(text) is not None


def text_fault(text: str) -> str | None:
    """Why a text is not allowed as a name or a level, or None if it is."""
    if not text:
        return "expected text, got an empty one"
    if len(text) > MAX_TEXT:
        return f"expected at most {MAX_TEXT} characters, got {len(text)}"
    if _FORBIDDEN.search(text):
        return f"expected text without control characters, got {show_given(text)}"
    return None


def stands_for_missing(text: str) -> bool:
    """Whether a text is a spelling of a missing value in other programs: NA, NULL, NaN, …"""
    return text.strip().lower() in _MISSING_TEXTS


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Format a count with its noun: '1 loan', '1,200 loans', '2 entries' (by `plural`)."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def share_of(count: int, total: int) -> str:
    """Format a share in percent, at most two decimals; '< 0.01 %' if it is smaller."""
    percent = 100 * count / max(total, 1)
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


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


def show_number(value: float) -> str:
    """Format a number for people: thousands separators, at most two decimals unless tiny."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 0.005:
        return f"{value:.3g}"
    # Adding 0 turns −0 into 0.
    return f"{value + 0.0:,.2f}".rstrip("0").rstrip(".")


def show_bound(value: float) -> str:
    """Format a bound for people, with all of its digits."""
    shown = show_number(value)
    if float(shown.replace(",", "")) == value:
        return shown
    return f"{value:,}" if 1e-4 <= abs(value) < 1e15 else repr(value)


def show_given(value: object, limit: int = 60) -> str:
    """Show a given value in a message: text quoted, control characters escaped, cut if long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # null, true and false, as clients write JSON
    try:
        shown = ascii(value) if isinstance(value, str) and _FORBIDDEN.search(value) else repr(value)
    except ValueError:  # an int of thousands of digits has no repr
        shown = "a number of thousands of digits"
    except RecursionError:
        shown = "values nested too deep to show"
    size = len(value) if isinstance(value, str) else len(shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({size} characters)"
