"""Suspect a wrong unit of a number: percent for a fraction, dollars for thousands of dollars.

A book's column and a single loan's value have the same rule: a fraction above the range seen in
training may be given in percent, any other number outside it may be in another unit. One value
alone must lie outside by a factor, because a book has the majority of its values as evidence.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from peerloan.formatting import format_exact, format_plain
from peerloan.loan.definition import Field

ASK_UNIT = "is it in another unit?"
# Percent or cents, and thousands. Not 12 (months for years): ordinary incomes of a small training
# table's far end would be suspected.
_FACTORS = (100, 1_000)
# A single value is implausible if it is outside by more than this factor. A fraction that may be
# given in percent needs less, since fractions seldom lie far above those seen.
_IMPLAUSIBLE, _IMPLAUSIBLE_PERCENT = 10, 2


class UnitQuestion(NamedTuple):
    """A question about an implausible value, and the value in the unit that explains it, if any."""

    text: str
    suggestion: float | None


def may_be_percent(field: Field, is_above: bool) -> bool:
    """Whether values on this side of the seen range may be percentages given for a fraction."""
    return field.percent and is_above


def ask_unit(field: Field, is_above: bool) -> str:
    """Ask whether a column on this side of the seen range has a wrong unit."""
    if may_be_percent(field, is_above):
        return "is it given in percent? Expected 0.1306 for 13.06 %"
    return ASK_UNIT


def question_unit(field: Field, value: float) -> UnitQuestion | None:
    """Question a number that lies outside the seen range by a factor; None if it does not.

    The factor is more than 10, or more than 2 for a fraction that, divided by 100, lies in the
    seen range.
    """
    seen = field.seen_range
    if seen is None or seen[0] <= value <= seen[1]:
        return None
    is_above = value > seen[1]
    excess = _excess(value, *seen)
    if excess <= (_IMPLAUSIBLE_PERCENT if may_be_percent(field, is_above) else _IMPLAUSIBLE):
        return None
    suggestion = _in_another_unit(field, value, *seen)
    if suggestion is None and excess <= _IMPLAUSIBLE:
        return None
    if field.percent and suggestion is not None:
        text = f"{format_exact(value)} is read as {field.show(value)}"
    else:
        side = "above" if is_above else "below"
        ends = " to ".join(map(field.show, seen))
        text = f"{field.show(value)} is far {side} the range seen in training, {ends}"
    if suggestion is None:
        return UnitQuestion(f"{text}. {ASK_UNIT.capitalize()}", None)
    return UnitQuestion(f"{text}. Did you mean {show_suggestion(field, suggestion)}?", suggestion)


def _in_another_unit(field: Field, value: float, low: float, high: float) -> float | None:
    """Convert a number to the unit in which it lies in the seen range, None if there is none.

    Of two units, the one whose number is nearer the range's middle is chosen.
    """
    is_large = abs(value) > max(abs(low), abs(high))
    factors = _FACTORS[:1] if field.percent else _FACTORS
    # 15 digits, so that 14.46 / 100 is 0.1446.
    converted = [float(f"{value / by if is_large else value * by:.15g}") for by in factors]
    fitting = [
        number
        for number in converted
        if low <= number <= high and (field.kind != "whole" or number.is_integer())
    ]
    return min(fitting, key=lambda number: _distance(number, low, high), default=None)


def show_suggestion(field: Field, value: float) -> str:
    """Format a suggested value as a person enters it; a fraction with at least two decimals."""
    if not field.percent:
        return format_exact(value)
    shown = f"{value:.2f}"
    return shown if float(shown) == value else format_plain(value)


def _excess(value: float, low: float, high: float) -> float:
    """The factor by which a number is larger than the range's ends, or nearer to 0; else 1."""
    small, large = _sizes(low, high)
    size = abs(value)
    if size > large > 0:
        return size / large
    if 0 < size < small and (value > 0) == (low > 0):
        return small / size
    return 1.0


def _distance(value: float, low: float, high: float) -> float:
    """The factor, as a logarithm, between a number and the range's middle."""
    small, large = _sizes(low, high)
    middle = math.sqrt(small) * math.sqrt(large) if small else large / 2
    return abs(math.log(abs(value)) - math.log(middle)) if value and middle else math.inf


def _sizes(low: float, high: float) -> tuple[float, float]:
    """The smallest and largest size of a number in a range, regardless of its sign."""
    sizes = sorted((abs(low), abs(high)))
    return (sizes[0] if low > 0 or high < 0 else 0.0), sizes[1]
