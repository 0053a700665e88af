"""Hints for callers: what to send instead of a value that a field refuses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from peerloan.formatting import as_whole
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
    """Return a record's problems, with a hint added to each one that has a likely cause."""
    fields = {field.name: field for field in definition.fields}
    # Computed once for a record: it may have a hundred thousand names and as many problems.
    spellings = {_letters(name): name for name in record if name not in fields}
    hinted = []
    for problem in problems:
        field = fields.get(problem.field)
        if field is not None and field.name in record:
            problem = _hint_at_value(problem, field, record[field.name])
        elif field is not None:
            near = spellings.get(_letters(field.name))
            hint = f"rename {show_name(near)!r} to {field.name!r}" if near else _levels(field)
            problem = _with_hint(problem, hint)
        hinted.append(problem)
    return hinted


def _hint_at_value(problem: Problem, field: Field, value: Any) -> Problem:
    """Return the problem of a wrong value, with a hint added if there is one."""
    if isinstance(value, float) and not math.isfinite(value):
        name = _NUMBERS.get(problem.given, problem.given)
        return _with_hint(
            replace(problem, given=name), f"JSON has no {name}: {_missing_hint(field)}"
        )
    if isinstance(value, str) and value.strip().lower() in MISSING_NUMBERS:
        return _with_hint(problem, _missing_hint(field))
    hint = _number_hint(field, value) if field.is_number else _level_hint(field, value)
    return _with_hint(problem, hint)


def _with_hint(problem: Problem, hint: str) -> Problem:
    return replace(problem, expected=f"{problem.expected} ({hint})") if hint else problem


def _missing_hint(field: Field) -> str:
    return "a missing value is null" + ("" if field.missing else ", and this field needs a value")


def _level_hint(field: Field, value: Any) -> str:
    """Return a hint for a value that is no level of a category; empty if there is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _levels(field) or "text in double quotes"
    if not isinstance(value, str):
        return _levels(field)
    near = _by_letters(field.seen_levels).get(_letters(value), [])
    return f"did you mean {near[0]!r}?" if len(near) == 1 else ""


@lru_cache(maxsize=512)
def _by_letters(levels: tuple[str, ...]) -> dict[str, list[str]]:
    """Group levels that differ only in case, spaces or punctuation."""
    groups: dict[str, list[str]] = {}
    for level in levels:
        groups.setdefault(_letters(level), []).append(level)
    return groups


def _number_hint(field: Field, value: Any) -> str:
    """Return a hint for a value that is not a number of the field; empty if there is none."""
    if isinstance(value, bool):
        return "not true or false"
    if not isinstance(value, str):
        return ""
    number = _likely_number(field, value)
    return "a number without quotes" if number is None else f"without quotes: {number}"


def _likely_number(field: Field, text: str) -> str | None:
    """Return the number that a text most likely means, as JSON.

    None if the text is no number, or if the field refuses the number.
    """
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
    return str(as_whole(number))


def _levels(field: Field) -> str:
    """List the levels of a category that were seen in training; empty for other fields."""
    if field.kind != "category" or not field.seen_levels:
        return ""
    shown = ", ".join(repr(level) for level in field.seen_levels[:_MAX_LEVELS])
    more = len(field.seen_levels) - _MAX_LEVELS
    return f"seen in training: {shown}" + (f" and {more:,} more" if more > 0 else "")


def _letters(text: str) -> str:
    """Reduce a text to lower-case letters and digits, to compare spellings."""
    return _NOT_LETTERS.sub("", text[:MAX_TEXT].lower())
