"""Hints what to send instead of a value that a field refused, for callers who write JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from peerloan.loan import Definition, Field, Problem
from peerloan.loan.text import MAX_TEXT, MISSING_NUMBERS, parse_number
from peerloan.loan.validation import show_name

_MAX_LEVELS = 20
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_NOT_LETTERS = re.compile(r"[^0-9a-z]")
# Names that JavaScript and Python write for numbers that JSON does not have.
_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def add_hints(
    definition: Definition, record: Mapping[str, Any], problems: list[Problem]
) -> list[Problem]:
    """Add a hint to each problem of a record, if there is one."""
    fields = {field.name: field for field in definition.fields}
    # Made once for a record: a body may have a hundred thousand names and as many problems.
    spellings = {_letters(name): name for name in record if name not in fields}
    hinted = []
    for problem in problems:
        field = fields.get(problem.field)
        if field is not None and field.name in record:
            problem = _of_value(problem, field, record[field.name])
        elif field is not None:
            near = spellings.get(_letters(field.name))
            hint = f"rename {show_name(near)!r} to {field.name!r}" if near else _levels(field)
            problem = _with_hint(problem, hint)
        hinted.append(problem)
    return hinted


def _of_value(problem: Problem, field: Field, value: Any) -> Problem:
    """Add a hint to the problem of a wrong value."""
    if isinstance(value, float) and not math.isfinite(value):
        name = _NUMBERS.get(problem.given, problem.given)
        return _with_hint(replace(problem, given=name), f"JSON has no {name}: {_missing(field)}")
    if isinstance(value, str) and value.strip().lower() in MISSING_NUMBERS:
        return _with_hint(problem, _missing(field))
    hint = _of_number(field, value) if field.is_number else _of_level(field, value)
    return _with_hint(problem, hint)


def _with_hint(problem: Problem, hint: str) -> Problem:
    return replace(problem, expected=f"{problem.expected} ({hint})") if hint else problem


def _missing(field: Field) -> str:
    return "a missing value is null" + ("" if field.missing else ", and this field needs a value")


def _of_level(field: Field, value: Any) -> str:
    """Make a hint for a value that is not a text of the field."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _levels(field) or "text in double quotes"
    if not isinstance(value, str):
        return _levels(field)
    near = _by_letters(field.seen_levels).get(_letters(value), [])
    return f"did you mean {near[0]!r}?" if len(near) == 1 else ""


@lru_cache(maxsize=512)
def _by_letters(levels: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for level in levels:
        found.setdefault(_letters(level), []).append(level)
    return found


def _of_number(field: Field, value: Any) -> str:
    """Make a hint for a value that is not a number of the field."""
    if isinstance(value, bool):
        return "not true or false"
    if not isinstance(value, str):
        return ""
    number = _read(field, value)
    return "a number without quotes" if number is None else f"without quotes: {number}"


def _read(field: Field, text: str) -> str | None:
    """Return the number that a text most likely means, as JSON; None if the field refuses it."""
    if len(text) > MAX_TEXT:
        return None
    bare = text.strip().lstrip("$€£").strip()
    percent = bare.endswith("%")
    bare = bare.removesuffix("%").strip()
    if _THOUSANDS.fullmatch(bare):
        bare = bare.replace(",", "")
    try:
        number = parse_number(bare)
    except ValueError:
        return None
    if number is None:
        return None
    if percent and field.percent:
        number = float(f"{number / 100:.12g}")
    if not field.within(number) or (field.kind == "whole" and not number.is_integer()):
        return None
    return str(int(number) if number.is_integer() and abs(number) < 1e15 else number)


def _levels(field: Field) -> str:
    """List a category's levels in training; the problem lists ordered levels already."""
    if field.kind != "category" or not field.seen_levels:
        return ""
    shown = ", ".join(repr(level) for level in field.seen_levels[:_MAX_LEVELS])
    more = len(field.seen_levels) - _MAX_LEVELS
    return f"seen in training: {shown}" + (f" and {more:,} more" if more > 0 else "")


def _letters(text: str) -> str:
    """Reduce a text to letters and digits, to compare spellings of names and levels."""
    return _NOT_LETTERS.sub("", text[:MAX_TEXT].lower())
