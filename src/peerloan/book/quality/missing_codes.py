"""Detect numbers that stand for a missing value, such as 99999999, 365243 or -999.

A column's lowest or highest values, at most three at each end, are taken for codes if each occurs
in at least five rows and in at least one of 1,000, and one of these holds. (The gap is the distance
from the codes to the other values, the spread the range of the other values.)

- The gap is more than ten times the spread, and there are at least ten other distinct values (at
  least three if the numbers look like codes: 99, 96, 98).
- They look like codes (0, 999, 9998, 365243), the gap is larger than the spread, and there are at
  least ten other distinct values.
- They look like codes (-1 to -9, -99, -999), no other value is negative, and there are at least ten
  other distinct values.

A cap (every income above 1,000,000 written as that) is not detected: other values lie near it.
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
# Values of each part that are searched for distinct ones.
_LOOKED_AT = 2_000
_CODE = re.compile(r"0|-?9+[6-9]|-?([1-9])\1{2,}|365243|-[1-9]")


class RepeatedValue(NamedTuple):
    """A value and how many rows have it."""

    value: float
    rows: int


class MissingCodes(NamedTuple):
    """The codes of a column, lowest first, and the range of the other values."""

    codes: list[RepeatedValue]
    lowest: float
    highest: float


class Extremes:
    """Collects the four lowest and four highest distinct values of a column, with their counts."""

    def __init__(self) -> None:
        self._count = 0
        self._low: list[RepeatedValue] = []
        self._high: list[RepeatedValue] = []
        self._distinct_values: set[float] = set()

    def add(self, values: Numbers) -> None:
        """Add the next values, none of them NaN."""
        if not len(values):
            return
        self._count += len(values)
        self._low = _merge_lowest(self._low, _lowest(values))
        self._high = _merge_lowest(self._high, _lowest(-values))
        if len(self._distinct_values) < _LEAST_OTHERS + 2 * _MOST:
            self._distinct_values.update(np.unique(values[:_LOOKED_AT]).tolist())

    def missing_codes(self) -> MissingCodes | None:
        """The values that look like codes; None if there are none."""
        if not self._count:
            return None
        low = high = 0
        # Codes at one end widen the spread and hide those at the other end, so look twice.
        for _ in range(2):
            low = self._count_codes(self._low, self._highest(high))
            high = self._count_codes(self._high, -self._lowest(low))
        codes = self._low[:low] + [RepeatedValue(-v, n) for v, n in reversed(self._high[:high])]
        other_values = len(self._distinct_values.difference(v for v, _ in codes))
        lowest, highest = self._lowest(low), self._highest(high)
        if not codes or (
            other_values < _LEAST_OTHERS
            and not _are_evident_codes(codes, lowest, highest, other_values)
        ):
            return None
        return MissingCodes(codes, lowest, highest)

    def _lowest(self, codes: int) -> float:
        return self._low[min(codes, len(self._low) - 1)].value

    def _highest(self, codes: int) -> float:
        return -self._high[min(codes, len(self._high) - 1)].value

    def _count_codes(self, end: list[RepeatedValue], other_end: float) -> int:
        """Count the codes at one end; `other_end` is the farthest of the other values.

        Values of the high end are negated, so that codes are the lowest there too.
        """
        high = end is self._high
        least = max(_LEAST_ROWS, _LEAST_SHARE * self._count)
        for count in range(min(_MOST, len(end) - 1), 0, -1):
            if min(rows for _, rows in end[:count]) < least:
                continue
            nearest, edge = end[count - 1].value, end[count].value
            gap, spread = edge - nearest, other_end - edge
            if not spread:  # there is only one other value
                continue
            if gap > _FAR * spread:
                return count
            if all(_looks_like_code(-v if high else v) for v, _ in end[:count]):
                all_negative = not high and nearest < 0 <= edge
                if gap > spread or all_negative:
                    return count
        return 0


def _are_evident_codes(
    codes: list[RepeatedValue], lowest: float, highest: float, others: int
) -> bool:
    """Whether these are codes even though there are few other values: all far away, all typical."""
    distances = (max(lowest - value, value - highest) for value, _ in codes)
    return (
        others >= _FEW_OTHERS
        and min(distances) > _FAR * (highest - lowest)
        and all(value and _looks_like_code(value) for value, _ in codes)
    )


def _looks_like_code(value: float) -> bool:
    return value.is_integer() and _CODE.fullmatch(str(int(value))) is not None


def _lowest(values: Numbers) -> list[RepeatedValue]:
    """The four lowest distinct values with their counts."""
    lowest: list[RepeatedValue] = []
    rest = values
    while len(lowest) <= _MOST and len(rest):
        value = rest.min()
        above = rest[rest > value]
        lowest.append(RepeatedValue(float(value), len(rest) - len(above)))
        rest = above
    return lowest


def _merge_lowest(first: list[RepeatedValue], second: list[RepeatedValue]) -> list[RepeatedValue]:
    """Merge the lowest values of two parts into the four lowest of both."""
    if not first:
        return second
    counts: dict[float, int] = {}
    for value, rows in (*first, *second):
        counts[value] = counts.get(value, 0) + rows
    return [RepeatedValue(value, counts[value]) for value in sorted(counts)[: _MOST + 1]]
