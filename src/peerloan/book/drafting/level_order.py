"""Find the order of text levels that obviously have one."""

from __future__ import annotations

import re
from collections.abc import Collection

_SCALE = ("very low", "low", "medium", "high", "very high")
_LEVEL = re.compile(
    r"(?P<before><=?|>=?|under|below|up to|less than|over|above|more than|at least)?\s*+"
    r"(?P<number>\d[\d,]*(?:\.\d+)?)\s*+(?P<plus>\+)?"
    r"(?:\s*+(?:-|–|to)\s*+\d[\d,]*(?:\.\d+)?)?\s*+(?P<unit>[a-z]*)\s*+(?P<after>and more|or more)?"
)
_LESS = {"<", "<=", "under", "below", "up to", "less than"}


def find_order(levels: Collection[str]) -> list[str] | None:
    """Sort levels from lowest to highest; None if their order is not obvious.

    Recognised are amounts ('< 1 year', '1 year', '10+ years'; '0-10', '10-20'), letters from A on
    (also A1, A2 …), and words from very low to very high. At least three levels are needed.
    """
    if len(levels) < 3:
        return None
    by_word = {level: level.lower().replace("_", " ").replace("-", " ") for level in levels}
    if set(by_word.values()) <= set(_SCALE) and len(set(by_word.values())) == len(levels):
        return sorted(levels, key=lambda level: _SCALE.index(by_word[level]))
    letters = sorted({level[:1] for level in levels})
    if all(re.fullmatch(r"[A-Z]\d?", level) for level in levels) and letters == [
        chr(ord("A") + i) for i in range(len(letters))
    ]:
        # A column of A, B and C1 mixes two scales.
        return sorted(levels) if len({len(level) for level in levels}) == 1 else None
    return _by_amount(levels)


def _by_amount(levels: Collection[str]) -> list[str] | None:
    keys: dict[tuple[float, int], str] = {}
    units = set()
    for level in levels:
        amount = _LEVEL.fullmatch(level.strip().lower())
        if amount is None:
            return None
        less = amount["before"] in _LESS
        more = (amount["before"] and not less) or amount["plus"] or amount["after"]
        number = float(amount["number"].replace(",", ""))
        keys[number, -1 if less else (1 if more else 0)] = level
        units.add(amount["unit"].removesuffix("s"))
    if len(keys) < len(levels) or len(units) > 1:
        return None
    return [keys[key] for key in sorted(keys)]
