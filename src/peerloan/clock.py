"""Times: parse and format them, and read the clock. All in milliseconds since 1970, UTC."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

EXPECTED = "a day or a moment (2026-11-25 or 2026-11-25T08:30:00Z)"
"""The `expected` of an error about a time."""
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()


def parse_moment(text: str) -> int:
    """Parse an ISO 8601 time with a zone, or a date, which means its start in UTC.

    Returns milliseconds since 1970, negative for earlier times. Raises ValueError.
    """
    if len(text) == 10:
        parsed = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    else:
        parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(text)
    return (parsed - _EPOCH) // timedelta(milliseconds=1)


def moment(milliseconds: int) -> str:
    """Format a time as RFC 3339, in UTC with milliseconds."""
    utc = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    """The current time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def day_number(day: date) -> int:
    """The number of days from 1970-01-01 to a day."""
    return day.toordinal() - _EPOCH_ORDINAL


def date_of(number: int) -> date:
    """The day of a day number."""
    return date.fromordinal(number + _EPOCH_ORDINAL)
