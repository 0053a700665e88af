"""One text for each value, however a table or a request spells it.

Tables and programs write the same value in many ways: pandas writes 11.0 as soon as a column of
whole numbers has a gap, Python writes True, Arrow and JSON write true. This is the one place that
says which of them are the same. Everything that reads a category, an id or a label goes through it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

import msgspec

from peerloan.loan.definition import Definition, Field
from peerloan.loan.text import parse_number

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
# What has another spelling; a text that doesn't match is its own. RE2 and Python read it alike.
RESPELLED = f"^(?:True|TRUE|False|FALSE|{_WHOLE}|{_LARGE}|{_TIME})$"
_respelled = re.compile(f"(?:{_TIME}|(?P<whole>{_WHOLE})|(?P<large>{_LARGE}))")
_time_parts = re.compile(r"(.{10} |)(.{8})(?:\.([0-9]+))?(.*)")


def plain(text: str) -> str:
    """The one spelling of a value that a text may spell in another way.

    - `True` and `TRUE` are `true`, `False` and `FALSE` are `false`.
    - A whole number with zeros behind the point (`11.0`, `-3.00`) is its digits (`11`, `-3`), and
      −0.0 is `0`. So is one that a double is written as (`1.5e+16`).
    - A time, as Arrow writes it (`2026-11-25 10:00:00.500000`), ends with its last digit that is
      no zero (`2026-11-25 10:00:00.5`); its zone is `Z` or as `+0100`; midnight without a zone
      is the day.

    Any other text stays as it is: `0012`, `1e3`, `1.10`, `v1.0`, `yes`.
    """
    if truth := _TRUTHS.get(text):
        return truth
    found = _respelled.fullmatch(text)
    if found is None:
        return text
    if found["whole"] is not None:
        digits = text.partition(".")[0]
        return "0" if digits == "-0" else digits
    if found["large"] is not None:
        number = float(text)
        return str(int(number)) if number.is_integer() else text
    day, time, fraction, zone = _time_parts.fullmatch(text).groups(default="")  # type: ignore[union-attr]
    fraction, zone = fraction.rstrip("0"), zone.replace(":", "")
    zone = "Z" if zone in ("+0000", "-0000") else zone
    if day and time == "00:00:00" and not fraction and not zone:
        return day.rstrip()
    return f"{day}{time}{'.' if fraction else ''}{fraction}{zone}"


def text_of(value: bool | float | Decimal) -> str:
    """A typed value as text: `true`, `11` (also of the double 11.0), `0.1`; a NaN as no text.

    A double that is not whole has the fewest digits that give it, a decimal those that it is
    written with.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value != value:
        return ""
    if isinstance(value, Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return str(int(value)) if whole else str(value)
    return str(int(value)) if value.is_integer() else repr(value)


class Spelling:
    """How a version spells the values of a field: as its definition and training table did.

    A text that is one of the known levels is itself. Any other is read as the known level that is
    the same value, or else in its plain spelling. So a version that was trained on `True` or
    `11.0` meets `true` and `11` as these. Where the known levels are 0 and 1, or true and false,
    the other pair means the same.
    """

    def __init__(self, levels: Iterable[str] = ()) -> None:
        # Of two that are the same value, the first is met by any third.
        self._levels = dict.fromkeys(levels)
        self._by_plain: dict[str, str] = {}
        for level in self._levels:
            value = plain(level)
            if value not in self._levels:
                self._by_plain.setdefault(value, level)
        by_value = {plain(level): level for level in reversed(self._levels)}
        for some, others in ((_BITS, _TRUTH_TEXTS), (_TRUTH_TEXTS, _BITS)):
            if by_value.keys() == {*some}:
                pairs = zip(others, some, strict=True)
                self._by_plain |= {other: by_value[value] for other, value in pairs}

    @classmethod
    def of(cls, field: Field) -> Spelling:
        """That of a field: what the training table held comes before what the definition lists."""
        return _spelling_of(field)

    @property
    def is_plain(self) -> bool:
        """Whether a plain text is always itself."""
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
        """The known level that a number or a truth value is, if there is one."""
        if not isinstance(value, bool | int | float):
            return None
        try:
            text = self(text_of(value))
        except (ValueError, OverflowError):  # thousands of digits; an infinite number
            return None
        return text if text in self._levels else None


@lru_cache(maxsize=512)  # of each part of a book anew, otherwise
def _spelling_of(field: Field) -> Spelling:
    seen = set(map(plain, field.seen_levels))
    listed = (level for level in field.levels if plain(level) not in seen)
    return Spelling((*field.seen_levels, *listed))


def with_one_spelling(definition: Definition) -> Definition:
    """A definition to train a new version by: each value is one level, and none has been seen."""
    fields = (each if each.is_number else _merged(each) for each in definition.fields)
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
    """The truth values and numbers that JSON may give for levels of a field."""
    found: dict[str, bool | int | float] = {}
    for level in (*field.seen_levels, *field.levels):
        text = plain(level)
        if text in ("true", "false"):
            found[text] = text == "true"
        elif (number := _number(text)) is not None and text_of(number) == text:
            found[text] = int(number) if number.is_integer() else number
    return list(found.values())


def _number(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None


def id_spellings(text: str) -> tuple[str, ...]:
    """The texts under which a ledger may have a loan's id: the plain one, which is written today,
    those that releases before wrote of a double or a decimal, and the one given.
    """
    value = plain(text)
    large = repr(float(value)) if value.lstrip("-").isdecimal() and len(value) < 300 else text
    others = (f"{value}.0", f"{value}.00", value.title(), value.upper(), large)
    return (value, *dict.fromkeys(t for t in (*others, text) if t != value and plain(t) == value))
