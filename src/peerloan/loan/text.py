"""Text and numbers as people write and read them."""

from __future__ import annotations

import json
import math
import re

MAX_TEXT = 200
TEXT_EXPECTED = f"text of 1 to {MAX_TEXT} characters without control characters"
# C0 and C1 controls, and surrogates that stand alone: none of them survives every database, file
# format and terminal that a value passes through.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# The same for JSON Schema: one letter that is allowed.
PLAIN_LETTER = "[^\\u0000-\\u001f\\u007f-\\u009f]"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# How tables that other programs wrote spell a missing number. For text only an empty cell is
# missing: NONE or NA may be a level.
MISSING_NUMBERS = frozenset({"", "na", "n/a", "nan", "null", "none"})
# How other programs spell a missing text, in lower case. NONE is not one: it is a usual level.
_MISSING_TEXTS = frozenset(
    {"na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "(null)", "missing", "?", ".", "-"}
)


def has_control(text: str) -> bool:
    """Whether a text holds control characters, or surrogates that stand alone."""
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
    """Whether a text is one by which other programs spell a missing value: NA, NULL, NaN, …"""
    return text.strip().lower() in _MISSING_TEXTS


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: '1 loan', '1,200 loans', '2 entries' (by `plural`)."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def share_of(count: int, total: int) -> str:
    """A share in percent, with enough decimals to see a small one."""
    percent = 100 * count / max(total, 1)
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def parse_whole(digits: str) -> float:
    """A whole number of any length: as a double, which for thousands of digits is infinite."""
    return int(digits) if len(digits) < 400 else float(digits)


def parse_number(text: str) -> float | None:
    """A number written as text: plain decimal or exponent notation, a point, no separators.

    Gives None for one of the spellings of a missing number; raises ValueError for anything else.
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
    """A number for people: thousands separated, at most two decimals unless it is tiny."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 0.005:
        return f"{value:.3g}"
    # Adding 0 makes −0 the same as 0.
    return f"{value + 0.0:,.2f}".rstrip("0").rstrip(".")


def show_bound(value: float) -> str:
    """A number that others are compared with: for people too, but with all of its digits."""
    shown = show_number(value)
    if float(shown.replace(",", "")) == value:
        return shown
    return f"{value:,}" if 1e-4 <= abs(value) < 1e15 else repr(value)


def show_given(value: object, limit: int = 60) -> str:
    """What was given, safe to print and to send: quoted if text, cut if long, escapes visible."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # null, true and false: callers write JSON
    try:
        shown = ascii(value) if isinstance(value, str) and _FORBIDDEN.search(value) else repr(value)
    except ValueError:  # an int of thousands of digits has no repr
        shown = "a number of thousands of digits"
    except RecursionError:
        shown = "values nested too deep to show"
    size = len(value) if isinstance(value, str) else len(shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({size} characters)"
