"""Normalise the spelling of categories, ids and labels: one text for each value.

Programs write the same value in different ways: pandas writes 11.0 if a column of whole numbers has
a gap, Python writes True, Arrow and JSON write true. This module defines which spellings are the
same value. All code that reads a category, an id or a label uses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

import msgspec

from peerloan.loan.definition import Definition, Field
from peerloan.loan.text import parse_number

# From this whole number on, a double may stand for several whole numbers.
FIRST_INEXACT = 2**53
_TRUTHS = {
    **dict.fromkeys(("true", "True", "TRUE"), "true"),
    **dict.fromkeys(("false", "False", "FALSE"), "false"),
}
_TRUTH_TEXTS, _BITS = ("false", "true"), ("0", "1")
_WHOLE = r"-?(?:0|[1-9][0-9]*)\.0+"
# As pandas and Python write large doubles.
_LARGE = r"-?[1-9](?:\.[0-9]+)?e\+[0-9]{2,3}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
_TIME = rf"(?:[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} )?{_CLOCK}(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"
# Texts that have another spelling; other texts stay as they are. Valid in RE2 (Arrow) and Python.
RESPELLED = f"^(?:True|TRUE|False|FALSE|{_WHOLE}|{_LARGE}|{_TIME})$"
_respelled = re.compile(f"(?:{_TIME}|(?P<whole>{_WHOLE})|(?P<large>{_LARGE}))")
_time_parts = re.compile(r"(.{10} |)(.{8})(?:\.([0-9]+))?(.*)")


def is_rounded(number: float) -> bool:
    """Whether a JSON number was read as a double that may be its neighbour's, as 2⁵³ + 1 may be."""
    return isinstance(number, float) and abs(number) >= FIRST_INEXACT


def plain(text: str) -> str:
    """Normalise a text to the plain spelling of its value.

    - `True` and `TRUE` are `true`, `False` and `FALSE` are `false`.
    - A whole number with zeros after the point (`11.0`, `-3.00`) becomes its digits (`11`, `-3`),
      −0.0 becomes `0`. So does the exponent notation of a large double (`1.5e+16`).
    - A time, as Arrow writes it (`2026-11-25 10:00:00.500000`), loses trailing zeros
      (`2026-11-25 10:00:00.5`); its zone becomes `Z` or has the form `+0100`; midnight without a
      zone becomes the date.

    Any other text stays as it is: `0012`, `1e3`, `1.10`, `v1.0`, `yes`.
    """
    if truth := _TRUTHS.get(text):
        return truth
    parsed = _respelled.fullmatch(text)
    if parsed is None:
        return text
    if parsed["whole"] is not None:
        digits = text.partition(".")[0]
        return "0" if digits == "-0" else digits
    if parsed["large"] is not None:
        number = float(text)
        return str(int(number)) if number.is_integer() else text
    day, time, fraction, zone = _time_parts.fullmatch(text).groups(default="")  # type: ignore[union-attr]
    fraction, zone = fraction.rstrip("0"), zone.replace(":", "")
    zone = "Z" if zone in ("+0000", "-0000") else zone
    if day and time == "00:00:00" and not fraction and not zone:
        return day.rstrip()
    return f"{day}{time}{'.' if fraction else ''}{fraction}{zone}"


def text_of(value: bool | float | Decimal) -> str:
    """Convert a typed value to text: `true`, `11` (also for 11.0), `0.1`; empty for NaN.

    A double that is not whole gets its shortest decimal, a Decimal keeps its digits.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value != value:
        return ""
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value == value.to_integral_value()
        return str(int(value)) if is_whole else str(value)
    return str(int(value)) if value.is_integer() else repr(value)


class Spelling:
    """Maps texts to a version's own spelling of a field's levels.

    A known level stays as it is. Any other text becomes the known level of the same value, or else
    its plain spelling. So a version that was trained on `True` or `11.0` reads `true` and `11` as
    these. If the known levels are 0 and 1, or true and false, the other pair is equivalent.
    """

    def __init__(self, levels: Iterable[str] = ()) -> None:
        # If two levels are the same value, a third spelling of it becomes the first level.
        self._levels = dict.fromkeys(levels)
        self._by_plain: dict[str, str] = {}
        for level in self._levels:
            value = plain(level)
            if value not in self._levels:
                self._by_plain.setdefault(value, level)
        by_value = {plain(level): level for level in reversed(self._levels)}
        for pair, other_pair in ((_BITS, _TRUTH_TEXTS), (_TRUTH_TEXTS, _BITS)):
            if by_value.keys() == {*pair}:
                pairs = zip(other_pair, pair, strict=True)
                self._by_plain |= {other: by_value[value] for other, value in pairs}

    @classmethod
    def of(cls, field: Field) -> Spelling:
        """The spelling of a field: levels of the training table come before the listed ones."""
        return _spelling_of(field)

    @property
    def is_plain(self) -> bool:
        """Whether every text in plain spelling stays as it is."""
        return not self._by_plain

    def __eq__(self, other: object) -> bool:
        """Whether two versions spell every value alike."""
        return isinstance(other, Spelling) and (
            (self._levels, self._by_plain) == (other._levels, other._by_plain)
        )

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, text: str) -> str:
        if text in self._levels:
            return text
        text = plain(text)
        return self._by_plain.get(text, text)

    def typed(self, value: object) -> str | None:
        """The known level that a number or boolean stands for; None if there is none."""
        if not isinstance(value, bool | int | float) or is_rounded(value):
            return None
        try:
            text = self(text_of(value))
        except (ValueError, OverflowError):  # thousands of digits; an infinite number
            return None
        return text if text in self._levels else None


@lru_cache(maxsize=512)  # it is needed for each part of a book
def _spelling_of(field: Field) -> Spelling:
    seen = set(map(plain, field.seen_levels))
    listed = (level for level in field.levels if plain(level) not in seen)
    return Spelling((*field.seen_levels, *listed))


def normalize_levels(definition: Definition) -> Definition:
    """Prepare a definition for training: merge spellings of one level, and clear `seen`."""
    fields = (field if field.is_number else _merged(field) for field in definition.fields)
    return msgspec.structs.replace(definition, fields=tuple(fields))


def _merged(field: Field) -> Field:
    first: dict[str, str] = {}
    for level in field.levels:
        first.setdefault(plain(level), level)
    default = field.default
    if isinstance(default, str):
        default = first.get(plain(default), default)
    levels = tuple(first.values())
    return msgspec.structs.replace(field, levels=levels, default=default, seen=None)


def typed_levels(field: Field) -> list[bool | int | float]:
    """The booleans and numbers that JSON may contain in place of a field's levels."""
    by_text: dict[str, bool | int | float] = {}
    for level in (*field.seen_levels, *field.levels):
        text = plain(level)
        if text in ("true", "false"):
            by_text[text] = text == "true"
        elif (number := _number(text)) is not None and text_of(number) == text:
            by_text[text] = int(number) if number.is_integer() else number
    return list(by_text.values())


def _number(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None


def id_spellings(text: str) -> tuple[str, ...]:
    """The spellings under which a loan's id may be stored in a ledger.

    These are the plain one, which this release writes; those that earlier releases wrote for a
    double or a decimal; and `text` itself.
    """
    value = plain(text)
    large = repr(float(value)) if value.lstrip("-").isdecimal() and len(value) < 300 else text
    candidates = (f"{value}.0", f"{value}.00", value.title(), value.upper(), large)
    return (
        value,
        *dict.fromkeys(t for t in (*candidates, text) if t != value and plain(t) == value),
    )
