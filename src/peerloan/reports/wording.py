"""Format figures and lists for reports."""

from __future__ import annotations

from peerloan.formatting import format_number, percent, plural
from peerloan.stats.measures import Rate


def interval(rate: Rate) -> str:
    """Format the ends of a rate's interval in percent, without the sign: '2.13–2.30'."""
    return "–".join(percent(end).removesuffix(" %") for end in (rate.low, rate.high))


def show_rate(rate: Rate) -> str:
    """Format a late rate with its interval: '2.21 % (2.13–2.30)'."""
    return f"{percent(rate.rate)} ({interval(rate)})"


def plain_number(value: float, is_fraction: bool) -> str:
    """Format a feature's number without its unit; a percentage has its sign."""
    return f"{format_number(value * 100)} %" if is_fraction else format_number(value)


def show_loans(count: int) -> str:
    """'1 loan', '13 loans'."""
    return plural(count, "loan")
