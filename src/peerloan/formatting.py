"""Format numbers, counts and values for people: in messages, pages and reports."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol

# C0 and C1 control characters and lone surrogates: some databases, file formats and terminals
# change or refuse them.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Any other character, as a pattern of JSON Schema.
PLAIN_LETTER = "[^\\u0000-\\u001f\\u007f-\\u009f]"


def has_control(text: str) -> bool:
    """Whether a text contains control characters or lone surrogates."""
    return CONTROL_CHARACTERS.search(text) is not None


class Interval(Protocol):
    """The ends of an interval of a share."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


class RateWithInterval(Interval, Protocol):
    """A rate with its interval."""

    @property
    def rate(self) -> float:
        """The rate."""


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: '1 loan', '1,200 loans'."""
    return f"{count:,} {agree(count, noun, noun + 's')}"


def agree(count: int, singular: str, several: str) -> str:
    """Choose the form of a word that agrees with a count: `agree(3, "was", "were")` is 'were'."""
    return singular if count == 1 else several


def are(count: int) -> str:
    """Return 'is' for a count of one, else 'are'."""
    return agree(count, "is", "are")


def percent_of(count: int, total: int) -> str:
    """Format a share in percent, at most two decimals; '< 0.01 %' if it is smaller."""
    percent = 100 * count / max(total, 1)
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def format_number(value: float) -> str:
    """Format a number for people: thousands separators, at most two decimals unless tiny."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 0.005:
        return f"{value:.3g}"
    # Adding 0 turns −0 into 0.
    return f"{value + 0.0:,.2f}".rstrip("0").rstrip(".")


def format_exact(value: float) -> str:
    """Format a number for people as `format_number` does, but never round it."""
    shown = format_number(value)
    if float(shown.replace(",", "")) == value:
        return shown
    return f"{value:,}" if 1e-4 <= abs(value) < 1e15 else repr(value)


def show_value(value: object, limit: int = 60) -> str:
    """Format a value for a message: text quoted, control characters escaped, cut after `limit`."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # null, true and false, as clients write JSON
    try:
        shown = ascii(value) if isinstance(value, str) and has_control(value) else repr(value)
    except ValueError:  # an int of thousands of digits has no repr
        shown = "a number of thousands of digits"
    except RecursionError:
        shown = "values nested too deep to show"
    size = len(value) if isinstance(value, str) else len(shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({size} characters)"


def percent(share: float) -> str:
    """Format a share in percent: two decimals below 10 % and above 99 %, else one."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    if 99.99 < value < 100:
        return "> 99.99 %"
    if value in (0, 100):
        return f"{value:g} %"
    return f"{value:.2f} %" if value < 10 or value > 99 else f"{value:.1f} %"


def show_interval(interval: Interval) -> str:
    """Format the ends of an interval in percent, without the sign: '2.13–2.30'."""
    return "–".join(percent(end).removesuffix(" %") for end in (interval.low, interval.high))


def show_rate(rate: RateWithInterval) -> str:
    """Format a rate with its interval: '2.21 % (2.13–2.30)'."""
    return f"{percent(rate.rate)} ({show_interval(rate)})"


def show_number(value: float, is_fraction: bool) -> str:
    """Format a number without its unit: '12.5', or '12.5 %' for the fraction 0.125."""
    return f"{format_number(value * 100)} %" if is_fraction else format_number(value)


def format_probability(probability: float) -> str:
    """Format a probability in percent with two decimals: '4.20 %', 'under 0.01 %'."""
    return f"{100 * probability:.2f} %" if probability >= 0.0001 else "under 0.01 %"


def probability_in_words(probability: float) -> str:
    """Say what a probability of being late means: 'of 15 such loans one is late'.

    The fraction is the closest one among 1/n, (n − 1)/n and tenths, where n is at most 1,000.
    """
    rarer = min(probability, 1 - probability)
    if rarer < 0.001:
        if probability < 0.5:
            return "fewer than one in 1,000 such loans is late"
        return "more than 999 in 1,000 such loans are late"
    n = int(1 / rarer)
    fractions = ((1, n), (1, n + 1), (round(10 * rarer), 10))
    count, loans = min(fractions, key=lambda fraction: abs(fraction[0] / fraction[1] - rarer))
    if probability > 0.5:
        count = loans - count
    return f"of {loans:,} such loans {f'{count} are' if count > 1 else 'one is'} late"


def format_plain(number: float) -> str:
    """Format a number as a person types it: at most six significant digits, no separators.

    0.053099999999999994 becomes '0.0531', and 12000.0 becomes '12000'. A whole number keeps all of
    its digits.
    """
    return str(as_whole(number if number.is_integer() else float(f"{number:.6g}")))


def as_whole(number: float) -> int | float:
    """Return a whole number as an int, so that it is shown without '.0'; others unchanged."""
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def signed(value: float | None, decimals: int = 2) -> str:
    """Format a number with the minus sign '−' instead of a hyphen; '–' for None."""
    if value is None:
        return "–"
    # Adding 0 makes −0 the same as 0.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")


def join_words(items: Sequence[str], separator: str = ", ", most: int = 6) -> str:
    """Join items as 'a, b and c'; after `most` of them only the number of the others follows."""
    if rest := max(0, len(items) - most):
        items = [*items[:most], f"{rest:,} more"]
    if len(items) < 2 or (separator.strip() == ";" and not rest):
        return separator.join(items)
    return f"{separator.join(items[:-1])} and {items[-1]}"
