"""Numbers, counts and values as people read them: in messages, pages and reports."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

# C0 and C1 control characters and lone surrogates: not every database, file format and terminal
# keeps them.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: '1 loan', '1,200 loans'."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


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
    """Format a bound for people, with all of its digits."""
    shown = format_number(value)
    if float(shown.replace(",", "")) == value:
        return shown
    return f"{value:,}" if 1e-4 <= abs(value) < 1e15 else repr(value)


def show_value(value: object, limit: int = 60) -> str:
    """Show a given value in a message: text quoted, control characters escaped, cut if long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # null, true and false, as clients write JSON
    try:
        shown = ascii(value) if isinstance(value, str) and FORBIDDEN.search(value) else repr(value)
    except ValueError:  # an int of thousands of digits has no repr
        shown = "a number of thousands of digits"
    except RecursionError:
        shown = "values nested too deep to show"
    size = len(value) if isinstance(value, str) else len(shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({size} characters)"


def percent(share: float) -> str:
    """A share in percent, with enough digits to see a small one, or a small rest."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    if 99.99 < value < 100:
        return "> 99.99 %"
    if value in (0, 100):
        return f"{value:g} %"
    return f"{value:.2f} %" if value < 10 or value > 99 else f"{value:.1f} %"


def format_probability(probability: float) -> str:
    """Format a probability in percent with two decimals: '4.20 %', 'under 0.01 %'."""
    return f"{100 * probability:.2f} %" if probability >= 0.0001 else "under 0.01 %"


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
    """A number with a real minus sign; '–' for none."""
    if value is None:
        return "–"
    # Adding 0 makes −0 the same as 0.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")


def join_words(items: Sequence[str], separator: str = ", ", most: int = 6) -> str:
    """A list in words, the first few of it."""
    if rest := max(0, len(items) - most):
        items = [*items[:most], f"{rest:,} more"]
    if len(items) < 2 or (separator.strip() == ";" and not rest):
        return separator.join(items)
    return f"{separator.join(items[:-1])} and {items[-1]}"


def are(count: int) -> str:
    """'is' of one, 'are' of more."""
    return "is" if count == 1 else "are"
