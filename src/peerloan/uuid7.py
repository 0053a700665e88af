"""Decisions' ids: UUIDs of version 7 (RFC 9562), which rise, and tell when they were made.

Where the clock is set back, ids go on from the newest one, ahead of the clock, until it has caught
up: within a chain they must rise. By more than a minute they begin anew, and so must the chain.
"""

from __future__ import annotations

import random
import time
from uuid import UUID

# The 62 lowest bits, which are random.
_RANDOM = 0x3FFF_FFFF_FFFF_FFFF
# No decision is dated further ahead of the clock than this.
MAX_AHEAD_MS = 60_000


class Ids:
    """Makes ids, each above the one before unless the clock is set back by more than MAX_AHEAD_MS;
    who shares it takes turns.
    """

    def __init__(self) -> None:
        self._last = self._newest = 0

    @property
    def newest_ms(self) -> int:
        """The latest time of all that were made, in milliseconds since 1970. Thread-safe."""
        return max(self._last, self._newest) >> 80

    def new(self) -> bytes:
        """The next id: 48 bits of milliseconds since 1970, and 74 random ones."""
        # Unique, and no secret. (The system's source of randomness would let other threads run
        # first; this one begins anew in each process.)
        bits = random.getrandbits(74)
        made = (
            (time.time_ns() // 1_000_000) << 80
            | 0x7 << 76
            | (bits >> 62) << 64
            | 0x2 << 62
            | bits & _RANDOM
        )
        if made <= self._last:
            if (self._last >> 80) - (made >> 80) > MAX_AHEAD_MS:
                self._newest = max(self._last, self._newest)
            else:
                # Within a millisecond, or after the clock was set back: the next one in order.
                made = _after(self._last)
        self._last = made
        return made.to_bytes(16, "big")

    def many(self, count: int) -> list[bytes]:
        """As many, all of them of one millisecond: decisions that are made together."""
        if count < 2:
            return [self.new()] * count
        first = int.from_bytes(self.new())
        if (first & _RANDOM) + count > _RANDOM:  # one in a million billions
            return [self.new() for _ in range(count)]
        self._last = max(self._last, first + count - 1)
        return [each.to_bytes(16) for each in range(first, first + count)]


def _after(last: int) -> int:
    """The id after one: its random bits count on, around the version and the variant."""
    low = (last & _RANDOM) + 1
    high = ((last >> 64) & 0xFFF) + (low >> 62)
    milliseconds = (last >> 80) + (high >> 12)
    return milliseconds << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0x2 << 62 | low & _RANDOM


def text(made: bytes) -> str:
    """An id as people and JSON have it."""
    digits = made.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def milliseconds(made: bytes) -> int:
    """When an id was made, in milliseconds since 1970."""
    return int.from_bytes(made[:6], "big")


def first_at(milliseconds: int) -> UUID:
    """The lowest value of all ids made at a time or later."""
    return UUID(int=min(max(milliseconds, 0), (1 << 48) - 1) << 80)
