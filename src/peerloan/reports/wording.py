"""Figures and lists as reports write them."""

from __future__ import annotations

from collections.abc import Sequence

from peerloan.loan.text import counted, show_number
from peerloan.stats.measures import Rate


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


def interval(rate: Rate) -> str:
    """The ends of a rate's interval in percent, without the sign: '2.13–2.30'."""
    return "–".join(percent(end).removesuffix(" %") for end in (rate.low, rate.high))


def show_rate(rate: Rate) -> str:
    """A late rate with its interval: '2.21 % (2.13–2.30)'."""
    return f"{percent(rate.rate)} ({interval(rate)})"


def signed(value: float | None, decimals: int = 2) -> str:
    """A number with a real minus sign; '–' for none."""
    if value is None:
        return "–"
    # Adding 0 makes −0 the same as 0.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")


def plain(value: float, is_fraction: bool) -> str:
    """A feature's number without its unit; a fraction that people read in percent with the sign."""
    return f"{show_number(value * 100)} %" if is_fraction else show_number(value)


def several(items: Sequence[str], separator: str = ", ", most: int = 6) -> str:
    """A list in words, the first few of it."""
    if rest := max(0, len(items) - most):
        items = [*items[:most], f"{rest:,} more"]
    if len(items) < 2 or (separator.strip() == ";" and not rest):
        return separator.join(items)
    return f"{separator.join(items[:-1])} and {items[-1]}"


def loans(count: int) -> str:
    """'1 loan', '13 loans'."""
    return counted(count, "loan")


def are(count: int) -> str:
    """'is' of one, 'are' of more."""
    return "is" if count == 1 else "are"
