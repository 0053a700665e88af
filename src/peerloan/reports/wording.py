"""Figures and lists as reports write them."""

from __future__ import annotations

from peerloan.formatting import format_number, percent, plural
from peerloan.stats.measures import Rate


def interval(rate: Rate) -> str:
    """The ends of a rate's interval in percent, without the sign: '2.13–2.30'."""
    return "–".join(percent(end).removesuffix(" %") for end in (rate.low, rate.high))


def show_rate(rate: Rate) -> str:
    """A late rate with its interval: '2.21 % (2.13–2.30)'."""
    return f"{percent(rate.rate)} ({interval(rate)})"


def plain(value: float, is_fraction: bool) -> str:
    """A feature's number without its unit; a fraction that people read in percent with the sign."""
    return f"{format_number(value * 100)} %" if is_fraction else format_number(value)


def loans(count: int) -> str:
    """'1 loan', '13 loans'."""
    return plural(count, "loan")
