"""Read a loan as people write it, and say what was understood.

The reader changes spelling only: the record that it returns is then checked by `Checks`, as any
other. A value that is valid already stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgspec

from peerloan.formatting import as_whole, show_value
from peerloan.loan.definition import Definition, Field, Value
from peerloan.loan.number_spelling import read_number
from peerloan.loan.spelling import Spelling
from peerloan.loan.suggestions import Suggestions
from peerloan.loan.text import MAX_TEXT, MISSING_NUMBERS
from peerloan.loan.validation import Checked, Checks, Problem, WrongValue

_SEPARATORS = re.compile(r"[\s_-]+")
_MAX_SHOWN_NAMES = 3


class Understood(msgspec.Struct, frozen=True, gc=False):
    """How a value, or the name of a field, was read: the text as given, and what it was read as."""

    field: str
    given: str
    read_as: Value


@dataclass(slots=True)
class LenientLoan:
    """A record with its names and values respelled, and what was changed.

    `names` and `values` are the respelled ones as they were given, by field. `problems` are the
    unclear ones; their values in the record are as given.
    """

    record: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def understood(self) -> list[Understood]:
        """Everything that was respelled: names first."""
        return [
            *(Understood(name, given, name) for name, given in self.names.items()),
            *(Understood(name, given, self.record[name]) for name, given in self.values.items()),
        ]


def check_leniently(
    checks: Checks,
    record: Mapping[str, Any],
    index: int | None = None,
    suggestions: Suggestions | None = None,
) -> tuple[Checked, LenientLoan]:
    """Read a record leniently, and check the result. The arguments are those of `Checks.loan`."""
    loan = read_leniently(checks.definition, record, checks.known, index)
    checked = checks.loan(loan.record, index, suggestions)
    unclear = {problem.field: problem for problem in loan.problems}
    problems = [
        unclear.pop(problem.field, _with_given(problem, loan)) for problem in checked.problems
    ]
    checked.problems = [*problems, *unclear.values()]
    return checked, loan


def read_leniently(
    definition: Definition,
    record: Mapping[str, Any],
    known: Collection[str] = (),
    index: int | None = None,
) -> LenientLoan:
    """Respell the names and values of a record, a mapping from names to JSON-like values.

    `known` are the names of fields of other versions, which stay as they are. `index` is the loan's
    index in a request, for its problems.
    """
    loan = LenientLoan()
    given_names: dict[str, list[str]] = {}
    for name, value in record.items():
        own = name if name in known else find_name(definition, name) or name
        given_names.setdefault(own, []).append(name)
        loan.record.setdefault(own, value)
    for name, names in given_names.items():
        if len(names) > 1:
            given = " and ".join(map(show_value, names[:_MAX_SHOWN_NAMES]))
            loan.problems.append(Problem(index, name, "one name for this field", given))
        elif names != [name]:
            loan.names[name] = names[0]
    for each in definition.fields:
        value = loan.record.get(each.name)
        try:
            read_as = _read_value(each, value)
        except WrongValue as error:
            problem = Problem(index, each.name, str(error), show_value(value))
            loan.problems.append(problem)
            continue
        if read_as is not value:
            loan.record[each.name] = read_as
            loan.values[each.name] = value if isinstance(value, str) else "NaN"
    return loan


def find_name(definition: Definition, name: str) -> str | None:
    """The field, or the column with a role, that a name stands for; None if none or several do.

    Names and the labels of fields may differ in case, spaces, hyphens and underscores.
    """
    exact, by_key = _names_of(definition)
    if name in exact:
        return name
    return by_key.get(_match_key(name)) if len(name) <= MAX_TEXT else None


def _with_given(problem: Problem, loan: LenientLoan) -> Problem:
    """Say what was given, beside what it was read as if that is not the same text."""
    given = loan.values.get(problem.field)
    if given is None or given.strip() == problem.given:
        return problem
    return replace(problem, given=f"{show_value(given)}, read as {problem.given}")


def _read_value(field: Field, given: Any) -> Any:
    """Return what a value is read as: itself if nothing is to be respelled.

    Raises WrongValue for a text that is unclear.
    """
    if isinstance(given, float) and given != given:
        return None
    if not isinstance(given, str) or len(given) > MAX_TEXT:
        return given
    if not field.is_number:
        return _read_level(field, given)
    if given.strip().lower() in MISSING_NUMBERS:
        return None
    number = read_number(field, given)
    return given if number is None else as_whole(number)


def _read_level(field: Field, given: str) -> str | None:
    levels, by_key = _levels_of(field)
    spelling = Spelling.of(field)
    if spelling(given) in levels:
        return given
    stripped = given.strip()
    if (level := spelling(stripped)) in levels:
        return level
    if match := by_key.get(_match_key(given)):
        return match
    return None if stripped.lower() in MISSING_NUMBERS else given


@lru_cache(maxsize=16)
def _names_of(definition: Definition) -> tuple[frozenset[str], dict[str, str]]:
    """The names of fields and roles, and the names by the keys that match exactly one of them."""
    names = dict.fromkeys((*definition.names, *definition.roles.columns(), "loan_id"))
    labels = ((field.label, field.name) for field in definition.fields)
    return frozenset(names), _by_key([*zip(names, names, strict=True), *labels])


@lru_cache(maxsize=512)
def _levels_of(field: Field) -> tuple[frozenset[str], dict[str, str]]:
    """The known levels, and the levels by the keys that match exactly one of them."""
    levels = field.levels
    if field.kind == "category":
        levels = (*levels, *(each for each in field.seen_levels if each not in levels))
    return frozenset(levels), _by_key(zip(levels, levels, strict=True))


def _by_key(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map the keys of texts to their names, without the keys that stand for several names."""
    names: dict[str, set[str]] = {}
    for text, name in pairs:
        names.setdefault(_match_key(text), set()).add(name)
    return {key: found.pop() for key, found in names.items() if len(found) == 1}


def _match_key(text: str) -> str:
    """Reduce a text for comparison: without case, spaces, hyphens and underscores.

    A separator between two digits stays, since 1-5 is not 15. So does a hyphen that is not between
    letters or digits, since A- is not A, and -1 is not 1.
    """

    def reduce(separator: re.Match[str]) -> str:
        before = text[max(0, separator.start() - 1) : separator.start()]
        after = text[separator.end() : separator.end() + 1]
        if before.isdigit() and after.isdigit():
            return "-"
        inside = before.isalnum() and after.isalnum()
        return "-" if "-" in separator[0] and not inside else ""

    text = text.strip().casefold()
    return _SEPARATORS.sub(reduce, text)
