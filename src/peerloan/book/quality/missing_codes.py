"""Numbers that stand for a missing value, such as 99999999, 365243 or -999.

A column's lowest or highest values, at most three at an end, are taken for such codes if each
repeats (in at least five rows, and in one of 1,000), and

- they lie more than ten times as far from the other values as these are apart, which are at least
  ten, or at least three where they look like codes (99, 96, 98); or
- they look like codes (0, 999, 9998, 365243) and lie farther from the other values, of which there
  are at least ten, than these are apart; or
- they look like codes (-1 to -9, -99, -999), no other value is negative, and there are ten others.

A cap (every income above 1,000,000 written as that) is none: other values lie near it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from peerloan.stats.arrays import Numbers

_MOST = 3
_LEAST_ROWS = 5
_LEAST_SHARE = 0.001
_LEAST_OTHERS = 10
_FEW_OTHERS = 3
_FAR = 10
# Values of a part among which different ones are looked for.
_LOOKED_AT = 2_000
_CODE = re.compile(r"0|-?9+[6-9]|-?([1-9])\1{2,}|365243|-[1-9]")


class Repeated(NamedTuple):
    """A value and how many rows have it."""

    value: float
    rows: int


class MissingCodes(NamedTuple):
    """Codes of a column, the lowest first, and between what the other values lie."""

    codes: list[Repeated]
    lowest: float
    highest: float


class Extremes:
    """The four lowest and the four highest different values of a column, counted part by part."""

    def __init__(self) -> None:
        self._count = 0
        self._low: list[Repeated] = []
        self._high: list[Repeated] = []
        self._some: set[float] = set()

    def add(self, values: Numbers) -> None:
        """Take in the next values, none of them NaN."""
        if not len(values):
            return
        self._count += len(values)
        self._low = _merged(self._low, _lowest(values))
        self._high = _merged(self._high, _lowest(-values))
        if len(self._some) < _LEAST_OTHERS + 2 * _MOST:
            self._some.update(np.unique(values[:_LOOKED_AT]).tolist())

    def missing_codes(self) -> MissingCodes | None:
        """The values that look like codes; None if there are none."""
        if not self._count:
            return None
        low = high = 0
        # Codes at one end would hide those at the other, so the first end is looked at again.
        for _ in range(2):
            low = self._codes(self._low, self._highest(high))
            high = self._codes(self._high, -self._lowest(low))
        codes = self._low[:low] + [Repeated(-v, n) for v, n in reversed(self._high[:high])]
        others = len(self._some.difference(v for v, _ in codes))
        lowest, highest = self._lowest(low), self._highest(high)
        if not codes or (
            others < _LEAST_OTHERS and not _plainly_codes(codes, lowest, highest, others)
        ):
            return None
        return MissingCodes(codes, lowest, highest)

    def _lowest(self, codes: int) -> float:
        return self._low[min(codes, len(self._low) - 1)].value

    def _highest(self, codes: int) -> float:
        return -self._high[min(codes, len(self._high) - 1)].value

    def _codes(self, end: list[Repeated], other_end: float) -> int:
        """How many values at an end are codes; `other_end` is the farthest of the other values.

        At the high end all of them are negated, so that codes are the lowest there too.
        """
        high = end is self._high
        least = max(_LEAST_ROWS, _LEAST_SHARE * self._count)
        for many in range(min(_MOST, len(end) - 1), 0, -1):
            if min(rows for _, rows in end[:many]) < least:
                continue
            nearest, edge = end[many - 1].value, end[many].value
            gap, spread = edge - nearest, other_end - edge
            if not spread:  # there would be one other value
                continue
            if gap > _FAR * spread:
                return many
            if all(_looks_like_code(-v if high else v) for v, _ in end[:many]):
                all_negative = not high and nearest < 0 <= edge
                if gap > spread or all_negative:
                    return many
        return 0


def _plainly_codes(codes: list[Repeated], lowest: float, highest: float, others: int) -> bool:
    """Whether values are codes beside only a few others: far from these, and no other code."""
    distances = (max(lowest - value, value - highest) for value, _ in codes)
    return (
        others >= _FEW_OTHERS
        and min(distances) > _FAR * (highest - lowest)
        and all(value and _looks_like_code(value) for value, _ in codes)
    )


def _looks_like_code(value: float) -> bool:
    return value.is_integer() and _CODE.fullmatch(str(int(value))) is not None


def _lowest(values: Numbers) -> list[Repeated]:
    """The lowest different values with their counts."""
    lowest: list[Repeated] = []
    rest = values
    while len(lowest) <= _MOST and len(rest):
        value = rest.min()
        above = rest[rest > value]
        lowest.append(Repeated(float(value), len(rest) - len(above)))
        rest = above
    return lowest


def _merged(some: list[Repeated], more: list[Repeated]) -> list[Repeated]:
    """The lowest of two parts' lowest values: no other value of either part is below them."""
    if not some:
        return more
    counts: dict[float, int] = {}
    for value, rows in (*some, *more):
        counts[value] = counts.get(value, 0) + rows
    return [Repeated(value, counts[value]) for value in sorted(counts)[: _MOST + 1]]
