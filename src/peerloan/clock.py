"""Moments as people and callers write and read them."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

EXPECTED = "a day or a moment (2026-11-25 or 2026-11-25T08:30:00Z)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
