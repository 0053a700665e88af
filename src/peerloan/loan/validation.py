"""Check one loan against a definition, and report every wrong field at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from peerloan.errors import PeerLoanError
from peerloan.formatting import format_exact, show_value
from peerloan.loan.definition import Definition, Field, Value
from peerloan.loan.spelling import FIRST_INEXACT, Spelling, is_rounded, plain, text_of
from peerloan.loan.suggestions import Suggestions
from peerloan.loan.text import TEXT_EXPECTED, stands_for_missing, text_fault
from peerloan.loan.units import question_unit, show_suggestion
from peerloan.loan.warning import LoanWarning

# No level is suggested for a field with more levels: something is similar to any text.
_MAX_COMPARED_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong value: its loan (index in a request or row of a book), its field, and why."""

    loan: int | None
    field: str
    expected: str
    given: str


class Checked(msgspec.Struct):
    """A checked record: values in the fields' order, valid if there are no problems."""

    values: tuple[Value, ...]
    loan_id: str | None = None
    problems: list[Problem] = []
    warnings: list[LoanWarning] = []


class WrongValue(PeerLoanError, ValueError):
    """A value that its field does not accept."""


_ID_EXPECTED = f"{TEXT_EXPECTED}, or a whole number"
# A check converts a JSON value to the field's value, or raises WrongValue.
_Check = Callable[[Any], Value]


class Checks:
    """A definition compiled to fast checks of single records.

    `known` are the names of fields of other versions: they are accepted, ignored, and cause a
    warning. With `exact` texts are not respelled, as in earlier releases: `True` is not `true`.
    """

    def __init__(
        self, definition: Definition, known: Iterable[str] = (), exact: bool = False
    ) -> None:
        self.definition = definition
        self.spellings = [None if exact else Spelling.of(field) for field in definition.fields]
        self._checks = [
            (field, _compile(field, spelling))
            for field, spelling in zip(definition.fields, self.spellings, strict=True)
        ]
        self._names = frozenset(definition.names)
        roles = definition.roles
        self.id_names = tuple(dict.fromkeys(name for name in ("loan_id", roles.id) if name))
        self._role_names = frozenset(roles.columns()) | {"loan_id"}
        self._known = frozenset(known) - self._names - self._role_names
        self._candidates = (*definition.names, *sorted(self._known))

    @property
    def known(self) -> frozenset[str]:
        """Fields of other versions that a request may carry."""
        return self._known

    @property
    def allowed_names(self) -> frozenset[str]:
        """Every name that a request's loan may carry."""
        return self._names | self._known | self._role_names

    def loan(
        self,
        record: Mapping[str, Any],
        index: int | None = None,
        suggestions: Suggestions | None = None,
    ) -> Checked:
        """Check one record, a mapping from field names to JSON-like values.

        Pass the same `suggestions` for all records of a request, to bound their cost.
        """
        suggestions = suggestions or Suggestions()
        problems: list[Problem] = []
        warnings: list[LoanWarning] = []
        values: list[Value] = []
        for field, check in self._checks:
            try:
                value = check(record.get(field.name))
            except WrongValue:
                given = show_value(record[field.name]) if field.name in record else "nothing"
                problems.append(Problem(index, field.name, field.expected, given))
                value = None
            else:
                if value is not None and (warning := unusual_value(field, value, suggestions)):
                    warnings.append(warning)
            values.append(value)
        checked = Checked(tuple(values), None, problems, warnings)
        # Most records carry the fields and nothing else.
        if len(record) > len(self._checks) or not self._names.issuperset(record):
            self._others(record, index, checked, suggestions)
        return checked

    def _others(
        self,
        record: Mapping[str, Any],
        index: int | None,
        checked: Checked,
        suggestions: Suggestions,
    ) -> None:
        """Check the names that are not fields: ids, roles, fields of other versions, mistakes."""
        for name in record:
            if name in self._names:
                continue
            if name in self.id_names:
                self._id(record, name, index, checked)
            elif name in self._known:
                text = "this model version does not use it"
                checked.warnings.append(LoanWarning(name, "unused_field", text))
            elif name not in self._role_names:
                expected, given = self._instead_of(name, suggestions), show_value(record[name])
                checked.problems.append(Problem(index, show_name(name), expected, given))

    def _id(
        self, record: Mapping[str, Any], name: str, index: int | None, checked: Checked
    ) -> None:
        try:
            loan_id = check_id(record[name])
        except WrongValue as error:
            expected = str(error)
        else:
            if loan_id is None or checked.loan_id in (None, loan_id):
                checked.loan_id = loan_id or checked.loan_id
                return
            expected = f"the loan's one id, which is {show_value(checked.loan_id)} already"
        checked.problems.append(Problem(index, name, expected, show_value(record[name])))

    def names(
        self, columns: Iterable[str], suggestions: Suggestions | None = None
    ) -> list[Problem]:
        """The problems of a request's column names: unknown names, and absent required ones."""
        suggestions = suggestions or Suggestions()
        present = dict.fromkeys(columns)
        allowed = self.allowed_names
        problems = [
            Problem(None, show_name(name), self._instead_of(name, suggestions), "such a column")
            for name in present
            if name not in allowed
        ]
        return problems + [
            Problem(None, field.name, field.expected, "nothing")
            for field in self.definition.fields
            if not field.missing and field.name not in present
        ]

    def _instead_of(self, name: str, suggestions: Suggestions) -> str:
        """The `expected` of a problem with an unknown name."""
        if name == self.definition.label.column:
            return "no label: it is what is predicted"
        near = suggestions.nearest(name, self._candidates)
        return "a field of the loan" + (f" (did you mean {near}?)" if near else "")


def unusual_value(field: Field, value: float | str, suggestions: Suggestions) -> LoanWarning | None:
    """Warn of an allowed value that training did not see: out of the seen range, or a new level."""
    if isinstance(value, str):
        if field.kind == "category" and value not in field.seen_levels:
            hint = _hint(value, field.seen_levels, suggestions)
            text = f"{show_value(value)} was not seen in training{hint}"
            return LoanWarning(field.name, "unseen_level", text)
        return None
    seen = field.seen_range
    if seen is None or seen[0] <= value <= seen[1]:
        return None
    shown, low, high = (field.show(number) for number in (value, *seen))
    if shown in (low, high):  # they differ only in digits that rounding hides
        shown, low, high = (format_exact(number) for number in (value, *seen))
    text = f"{shown} is outside the range seen in training, {low} to {high}"
    if (asked := question_unit(field, value)) is None:
        return LoanWarning(field.name, "out_of_range", text)
    if asked.suggestion is None:
        return LoanWarning(field.name, "out_of_range", text, asked.text)
    # Earlier releases wrote this sentence without its end, and replay either as the other.
    text += f" (did you mean {show_suggestion(field, asked.suggestion)}?)"
    return LoanWarning(field.name, "unit-suspected", text, *asked)


def _hint(value: str, levels: tuple[str, ...], suggestions: Suggestions) -> str:
    if stands_for_missing(value) or value.lower() == "none":
        return ": does it stand for a missing value?"
    near = suggestions.nearest(value, levels) if len(levels) <= _MAX_COMPARED_LEVELS else None
    return f" (did you mean {near}?)" if near else ""


def show_name(name: str) -> str:
    """A field's name from a request, escaped if it is not safe in a message."""
    return name if text_fault(name) is None else show_value(name)


def check_id(given: Any) -> str | None:
    """Convert the id of a loan to text, None for none.

    Raises WrongValue, whose message is what is expected.
    """
    if given is None:
        return None
    text = given
    if isinstance(given, float) and is_rounded(given):
        raise WrongValue(
            "a text, or a whole number without a decimal point or exponent, since a number from "
            f"{FIRST_INEXACT:,} on loses digits with one"
        )
    # JSON's 5.0 is the integer 5.
    if type(given) is int or (type(given) is float and given.is_integer()):
        try:
            text = text_of(given)
        except ValueError:  # thousands of digits
            raise WrongValue(_ID_EXPECTED) from None
    if not isinstance(text, str) or text_fault(text):
        raise WrongValue(_ID_EXPECTED)
    return plain(text)


def _compile(field: Field, spelling: Spelling | None) -> _Check:
    if field.is_number:
        return _number_check(field)
    levels = frozenset(field.levels) if field.kind == "ordered" else None
    may_miss = field.missing

    def check_text(given: Any) -> Value:
        if given is None:
            if may_miss:
                return None
            raise WrongValue
        if spelling is not None:
            given = spelling(given) if isinstance(given, str) else spelling.typed(given)
        if not isinstance(given, str):
            raise WrongValue
        if text_fault(given) if levels is None else given not in levels:
            raise WrongValue
        return given

    return check_text


def _number_check(field: Field) -> _Check:
    may_miss, whole, within = field.missing, field.kind == "whole", field.within

    def check_number(given: Any) -> Value:
        if given is None:
            if may_miss:
                return None
            raise WrongValue
        if type(given) is not float:
            if type(given) is not int:
                raise WrongValue
            try:
                given = float(given)
            except OverflowError:
                raise WrongValue from None
        if not math.isfinite(given) or not within(given) or (whole and not given.is_integer()):
            raise WrongValue
        return given  # type: ignore[no-any-return]

    return check_number
