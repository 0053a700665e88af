"""Axes of charts: positions of values, ticks, and the width of their labels."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peerloan.formatting import format_exact

Scale = Literal["number", "percent", "count"]

FONT = 11  # font size of a chart, in its own units
_INTERVALS = 6
_STEPS = (1, 2, 2.5, 5, 10)
_MOST_DECADES = 6
# Widths of letters as shares of the font size, in the broadest of the usual sans-serif fonts.
_NARROW, _BROAD = frozenset(" .,:;'|!()[]iljtfrI-"), frozenset("mwMW%@…")


@dataclass(frozen=True)
class Axis:
    """An axis that maps the values `low` to `high` to the positions `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the position of a value; values beyond the axis are placed at its end."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        if math.isinf(high - low):  # the difference overflows a double
            low, high, at = low / 2, high / 2, at / 2
        return self.start + (at - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True)
class Tick:
    """The position and the label of a tick."""

    place: float
    text: str


def draw_ticks(axis: Axis, scale: Scale) -> tuple[Tick, ...]:
    """Make the ticks of an axis, so few that their labels don't touch."""
    values = (
        log_ticks(axis.low, axis.high)
        if axis.is_log
        else ticks(axis.low, axis.high, whole=scale == "count")
    )
    drawn = [Tick(axis.place(value), tick(value, scale)) for value in values]
    is_horizontal = axis.end > axis.start
    if is_horizontal and len(drawn) > 1:
        room = min(b.place - a.place for a, b in itertools.pairwise(drawn))
        need = max(text_width(tick_.text) for tick_ in drawn) + 4
        drawn = drawn[:: max(1, math.ceil(need / room))]
    return tuple(drawn)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return at most seven round values from `low` to `high`."""
    least = high / _INTERVALS - low / _INTERVALS
    power = 10.0 ** math.floor(math.log10(least)) if least else 0.0
    if not power:  # the ends are too close for a step between them
        return [low, high]
    step = next(part * power for part in _STEPS if part * power >= least * (1 - 1e-9))
    if whole:
        step = float(max(1, math.ceil(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Large numbers with small differences may be the same double.
    return list(dict.fromkeys(place * step for place in range(first, last + 1)))


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten from `low` to `high`; if they are few, also 2 and 5 times these."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 2:
        stride = math.ceil((last - first + 1) / _MOST_DECADES)
        return [10.0**power for power in range(first, last + 1, stride)]
    values = [part * 10.0**power for power in range(first - 1, last + 1) for part in (1, 2, 5)]
    return [value for value in values if low <= value <= high]


def tick(value: float, scale: Scale = "number") -> str:
    """Format a number for an axis: '20k', '1.5M', '2.5 %'."""
    if scale == "percent":
        return f"{float(f'{value * 100:.6g}'):g} %"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if letter == 'k' else size):g}{letter}"
    # Six digits distinguish ticks, and hide rounding errors.
    return format_exact(float(f"{value:.6g}"))


def with_margin(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis: the range of the values with 5 % of room at both ends."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def text_width(text: str) -> float:
    """Estimate the width of a text in the units of a chart."""
    return FONT * sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in _NARROW:
        return 0.38
    if letter in _BROAD:
        return 0.98
    return 0.7 if letter.isupper() else 0.62
