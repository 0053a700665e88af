"""Ids of decisions: UUIDs of version 7 (RFC 9562), which ascend and contain the creation time.

Ids must ascend within a chain. If the clock is set back by up to a minute, ids continue from the
newest one, ahead of the clock, until the clock has caught up. If it is set back further, ids start
again at the clock's time, and the caller must begin a new chain.
"""

from __future__ import annotations

import random
import time
from uuid import UUID

# The 62 lowest bits, which are random.
_RANDOM = 0x3FFF_FFFF_FFFF_FFFF
# The time of an id is at most this far ahead of the clock.
MAX_AHEAD_MS = 60_000


class IdGenerator:
    """Generates ids, ascending unless the clock is set back by more than MAX_AHEAD_MS.

    `new` and `many` are not thread-safe: callers that share a generator must lock it.
    """

    def __init__(self) -> None:
        # The previous id, and the highest id before the clock was set back, as integers.
        self._last = self._newest = 0

    @property
    def newest_ms(self) -> int:
        """The latest time of all generated ids, in milliseconds since 1970. Thread-safe."""
        return max(self._last, self._newest) >> 80

    def new(self) -> bytes:
        """Generate the next id: 48 bits of milliseconds since 1970, and 74 random bits."""
        # `random` is good enough: ids must be unique, not secret, and each process has its own
        # seed. os.urandom would release the interpreter lock.
        bits = random.getrandbits(74)
        value = (
            (time.time_ns() // 1_000_000) << 80
            | 0x7 << 76
            | (bits >> 62) << 64
            | 0x2 << 62
            | bits & _RANDOM
        )
        if value <= self._last:
            if (self._last >> 80) - (value >> 80) > MAX_AHEAD_MS:
                self._newest = max(self._last, self._newest)
            else:
                # The same millisecond, or the clock was set back: the next id in order.
                value = _after(self._last)
        self._last = value
        return value.to_bytes(16, "big")

    def many(self, count: int) -> list[bytes]:
        """Generate the next `count` ids, all of one millisecond, for a batch of decisions."""
        if count < 2:
            return [self.new()] * count
        first = int.from_bytes(self.new())
        if (first & _RANDOM) + count > _RANDOM:  # practically never
            return [self.new() for _ in range(count)]
        self._last = max(self._last, first + count - 1)
        return [value.to_bytes(16) for value in range(first, first + count)]


def _after(last: int) -> int:
    """The next id: increment the random bits, around version and variant."""
    low = (last & _RANDOM) + 1
    high = ((last >> 64) & 0xFFF) + (low >> 62)
    milliseconds = (last >> 80) + (high >> 12)
    return milliseconds << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0x2 << 62 | low & _RANDOM


def text(id_bytes: bytes) -> str:
    """Format an id (16 bytes) with hyphens, as in JSON."""
    digits = id_bytes.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def milliseconds(id_bytes: bytes) -> int:
    """The time when an id (16 bytes) was generated, in milliseconds since 1970."""
    return int.from_bytes(id_bytes[:6], "big")


def first_at(milliseconds: int) -> UUID:
    """A lower bound of the ids of this time (milliseconds since 1970) and later."""
    return UUID(int=min(max(milliseconds, 0), (1 << 48) - 1) << 80)
