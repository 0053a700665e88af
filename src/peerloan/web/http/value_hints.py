"""Hints for callers: what to send instead of a value that a field refuses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from peerloan.loan import (
    Checks,
    Definition,
    Field,
    Problem,
    Suggestions,
    Value,
    check_leniently,
)
from peerloan.loan.text import MAX_TEXT, MISSING_NUMBERS
from peerloan.loan.validation import show_name

_MAX_LEVELS = 20
_NOT_LETTERS = re.compile(r"[^0-9a-z]")
_OPTION = "add ?lenient=true"
# Names that JavaScript and Python write for numbers that JSON does not have.
_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def find_readings(checks: Checks, record: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values that would be accepted if the record was read leniently, by field.

    These are only the values that are spelled in another way, or have another name.
    """
    checked, loan = check_leniently(checks, record, None, Suggestions(comparisons=0))
    refused = {problem.field for problem in checked.problems}
    return {name: loan.record[name] for name in (*loan.names, *loan.values) if name not in refused}


def add_hints(
    definition: Definition,
    record: Mapping[str, Any],
    problems: list[Problem],
    readings: Mapping[str, Value] | None = None,
    offers_lenient: bool = False,
) -> list[Problem]:
    """Return a record's problems, with a hint added to each one that has a likely cause.

    `readings` are those of `find_readings`. With `offers_lenient`, their hints name the option
    `?lenient=true`.
    """
    readings = readings or {}
    fields = {field.name: field for field in definition.fields}
    # Computed once for a record: it may have a hundred thousand names and as many problems.
    spellings = {_letters(name): name for name in record if name not in fields}
    hinted = []
    for problem in problems:
        field = fields.get(problem.field)
        if field is not None and field.name in record:
            hint = _value_hint(field, record[field.name], readings.get(field.name))
        elif field is not None:
            near = spellings.get(_letters(field.name))
            hint = f"rename {show_name(near)!r} to {field.name!r}" if near else _levels(field)
        else:
            hint = ""
        if offers_lenient and problem.field in readings:
            hint = _with_option(hint)
        hinted.append(_with_hint(problem, hint))
    return hinted


def _value_hint(field: Field, value: Any, reading: Value) -> str:
    """Return a hint for a wrong value; empty if there is none. `reading` is its lenient reading."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"JSON has no {_NUMBERS[repr(value)]}: {_missing_hint(field)}"
    if isinstance(value, str) and value.strip().lower() in MISSING_NUMBERS:
        return _missing_hint(field)
    return _number_hint(value, reading) if field.is_number else _level_hint(field, value)


def _with_option(hint: str) -> str:
    if not hint:
        return _OPTION
    return f"{hint} Or {_OPTION}" if hint.endswith("?") else f"{hint}, or {_OPTION}"


def _with_hint(problem: Problem, hint: str) -> Problem:
    expected = f"{problem.expected} ({hint})" if hint else problem.expected
    return replace(problem, expected=expected, given=_NUMBERS.get(problem.given, problem.given))


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


def _number_hint(value: Any, reading: Value) -> str:
    """Return a hint for a value that is not a number of a field; empty if there is none."""
    if isinstance(value, bool):
        return "not true or false"
    if not isinstance(value, str):
        return ""
    return "a number without quotes" if reading is None else f"without quotes: {reading}"


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
