"""Moments as people and callers write and read them."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

EXPECTED = "a day or a moment (2026-11-25 or 2026-11-25T08:30:00Z)"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()


def parse_moment(text: str) -> int:
    """A moment with its time zone, or a day's begin in UTC, in milliseconds since 1970 (before it:
    below zero); raises ValueError.
    """
    if len(text) == 10:
        found = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    else:
        found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(text)
    return (found - _EPOCH) // timedelta(milliseconds=1)


def moment(milliseconds: int) -> str:
    """A time as JSON has it: RFC 3339, in UTC."""
    made = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def day_number(day: date) -> int:
    """The days from 1970-01-01 to a day."""
    return day.toordinal() - _EPOCH_ORDINAL


def date_of(number: int) -> date:
    """The day with a day number."""
    return date.fromordinal(number + _EPOCH_ORDINAL)
