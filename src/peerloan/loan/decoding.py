"""From a request's bytes to checked loans in one step, where nothing is wrong with them.

The reader is made from the definition: types, ranges and levels are checked while JSON is read.
What it refuses, `Checks` looks at closely and says why; both find the same values. Where a field's
name needs an escape in JSON (a quotation mark, a backslash), it refuses every loan: all are looked
at closely.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, UnsetType

from peerloan.loan.columns import Column, Loans, TextColumn, column_values
from peerloan.loan.definition import Definition, Field, Value
from peerloan.loan.spelling import Spelling
from peerloan.loan.suggestions import Suggestions
from peerloan.loan.text import text_fault
from peerloan.loan.validation import Checked, Checks, WrongValue, check_id, unusual_value
from peerloan.loan.warning import LoanWarning

_COLON = re.compile(rb'"\s*:')
# Letters that JSON writes with an escape: no name of a msgspec structure may hold one.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
# What no JSON is.
_NOTHING = Annotated[int, Meta(gt=0, lt=0)]
_REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class CheckedLoans:
    """Many loans after their check: in columns, with ids, and warnings by position.

    `values_by_field` are `loans.values_by_field()`, which whoever has read them has already.
    """

    loans: Loans
    values_by_field: Sequence[Sequence[Value]]
    loan_ids: Sequence[str | None]
    warnings: dict[int, list[LoanWarning]]

    @classmethod
    def of(cls, definition: Definition, checked: Sequence[Checked]) -> CheckedLoans:
        """Loans that were looked at one by one, and that have no problems."""
        loans = Loans.of(definition, [each.values for each in checked])
        warnings = {i: each.warnings for i, each in enumerate(checked) if each.warnings}
        return cls(loans, loans.values_by_field(), [each.loan_id for each in checked], warnings)


class Decoder:
    """Reads loans of one definition. None means: look closely, something is unusual or wrong.

    `suggestions` are those of the whole request; by default each call has its own.
    """

    def __init__(self, checks: Checks) -> None:
        self._definition = checks.definition
        self._fields = fields = checks.definition.fields
        self._width = len(fields)
        names = [*checks.definition.names, *checks.id_names]
        kinds = [*(_type(field) for field in fields), *([Any] * len(checks.id_names))]
        required = [not field.missing for field in fields]
        loan = _struct(names, kinds, required)
        self._loan = msgspec.json.Decoder(loan)
        self._list = msgspec.json.Decoder(list[loan])  # type: ignore[valid-type]
        lists: list[Any] = [list[kind] for kind in kinds]  # type: ignore[valid-type]
        self._lists = _struct(names, lists, required)
        self._whole = [i for i, field in enumerate(fields) if field.kind == "whole"]
        self._ranges = [
            (i, *field.seen_range) for i, field in enumerate(fields) if field.seen_range is not None
        ]
        self._spellings = checks.spellings
        self._levels = [
            (i, frozenset[Value]({*field.seen_levels, None}))
            for i, field in enumerate(fields)
            if field.kind == "category"
        ]

    def loan(self, content: bytes, suggestions: Suggestions | None = None) -> Checked | None:
        """One loan, an object."""
        try:
            read = msgspec.structs.astuple(self._loan.decode(content))
        except _REFUSED:
            return None
        if may_have_duplicate_names(content, len(read) - read.count(UNSET)):
            return None
        values = read[: self._width]
        if UNSET in values:
            values = tuple([None if value is UNSET else value for value in values])
        loan_id = None
        for given in read[self._width :]:
            if given is not UNSET:
                if loan_id is not None:
                    return None
                try:
                    loan_id = check_id(given)
                except WrongValue:
                    return None
        for i in self._whole:
            if values[i] is not None and not values[i].is_integer():
                return None
        # In the fields' order, as a close look finds them.
        odd = [
            i
            for i, low, high in self._ranges
            if (value := values[i]) is not None and not low <= value <= high
        ]
        for i, seen in self._levels:
            if values[i] not in seen:
                spelling = self._spellings[i]
                if text_fault(values[i]) or (spelling and spelling(values[i]) != values[i]):
                    return None
                odd.append(i)
        if not odd:
            return Checked(values, loan_id)
        suggestions = suggestions or Suggestions()
        found = (unusual_value(self._fields[i], values[i], suggestions) for i in sorted(odd))
        return Checked(values, loan_id, [], [each for each in found if each is not None])

    def loans(
        self, content: bytes, most: int, suggestions: Suggestions | None = None
    ) -> CheckedLoans | None:
        """A list of loans, at most so many."""
        try:
            read = self._list.decode(content)
        except _REFUSED:
            return None
        if not 0 < len(read) <= most:
            return None
        columns: list[Sequence[Any]] = list(zip(*map(msgspec.structs.astuple, read), strict=True))
        names = len(read) * len(columns) - sum(column.count(UNSET) for column in columns)
        if may_have_duplicate_names(content, names):
            return None
        return self._checked(columns, len(read), suggestions)

    def columns(
        self,
        columns: Mapping[str, Any],
        most: int,
        suggestions: Suggestions | None = None,
    ) -> CheckedLoans | None:
        """Columns of JSON-like values, lists by name, for at most so many loans."""
        try:
            read = msgspec.structs.astuple(msgspec.convert(columns, self._lists))
        except _REFUSED:
            return None
        checked = self._sized(read, most, suggestions)
        # Python's reader of JSON takes NaN, which is a wrong value and not a missing one.
        if checked is None or any(map(_holds_nan, checked.loans.columns.values(), read)):
            return None
        return checked

    def _sized(
        self, read: Sequence[Any], most: int, suggestions: Suggestions | None
    ) -> CheckedLoans | None:
        sizes = {len(column) for column in read if column is not UNSET}
        size = max(sizes, default=0)
        if len(sizes) != 1 or not 0 < size <= most:
            return None
        columns = [[UNSET] * size if column is UNSET else column for column in read]
        return self._checked(columns, size, suggestions)

    def _checked(
        self, columns: list[Sequence[Any]], size: int, suggestions: Suggestions | None
    ) -> CheckedLoans | None:
        suggestions = suggestions or Suggestions()
        ids = _ids(columns[self._width :], size)
        found: dict[str, Column] = {}
        values: list[Sequence[Value]] = []
        warnings: dict[int, list[LoanWarning]] = {}
        for field, spelling, given in zip(self._fields, self._spellings, columns, strict=False):
            if field.missing and UNSET in given:
                given = [None if value is UNSET else value for value in given]
            column = _column(field, given)
            if isinstance(column, TextColumn) and spelling is not None:
                respelled = column.respelled(spelling)
                if respelled is not column:
                    column, given = respelled, respelled.values()
            odd = _odd(field, column)
            if odd is None:
                return None
            found[field.name] = column
            values.append(given)
            for i in odd:
                if warning := unusual_value(field, given[i], suggestions):
                    warnings.setdefault(i, []).append(warning)
        if ids is None:
            return None
        return CheckedLoans(Loans(self._definition, found, size), values, ids, warnings)


class StoredLoanDecoder:
    """Reads stored loans, which were checked when they were given; ignores all other names."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._spellings = [Spelling.of(field) for field in definition.fields]
        loan = _structure(
            definition.names,
            [(f"f{i}", _type(field) | None, None) for i, field in enumerate(definition.fields)],
        )
        self._list = msgspec.json.Decoder(list[loan])  # type: ignore[valid-type]

    def loans(self, content: bytes) -> Loans | None:
        """A list of loans; None if one of them needs a closer look."""
        try:
            read = self._list.decode(content)
        except _REFUSED:
            return None
        by_field = zip(*map(msgspec.structs.astuple, read), strict=True)
        columns: dict[str, Column] = {}
        for field, spelling, given in zip(
            self._definition.fields, self._spellings, by_field, strict=True
        ):
            column = _column(field, given)
            if isinstance(column, TextColumn):
                column = column.respelled(spelling)
            absent = column.codes < 0 if isinstance(column, TextColumn) else np.isnan(column)
            if (not field.missing and np.any(absent)) or _odd(field, column) is None:
                return None
            columns[field.name] = column
        return Loans(self._definition, columns, len(read))


def unusual_values(loans: Loans, suggestions: Suggestions) -> dict[int, list[LoanWarning]]:
    """The warnings about checked loans, by position: those that `Checks` gives for each."""
    warnings: dict[int, list[LoanWarning]] = {}
    for field in loans.definition.fields:
        column = loans.columns[field.name]
        odd = _odd(field, column) or []
        values = column_values(column.take(np.array(odd, dtype=np.int64)))
        for i, value in zip(odd, values, strict=True):
            if warning := unusual_value(field, value, suggestions):  # type: ignore[arg-type]
                warnings.setdefault(i, []).append(warning)
    return warnings


def unusual_rows(loans: Loans) -> npt.NDArray[np.bool_]:
    """Which checked loans have a warning (n,): as `unusual_values`, but for rounded ranges."""
    unusual = np.zeros(loans.size, dtype=np.bool_)
    for field in loans.definition.fields:
        column = loans.columns[field.name]
        if isinstance(column, TextColumn):
            unusual[_odd(field, column) or []] = True
        elif (seen := field.seen_range_rounded) is not None:
            unusual |= (column < seen[0]) | (column > seen[1])
    return unusual


def may_have_duplicate_names(content: bytes, names: int) -> bool:
    """Whether JSON with this number of different names may hold one of them twice.

    Each name is followed by a colon, and few values hold one.
    """
    return content.count(b":") != names and len(_COLON.findall(content)) != names


def _column(field: Field, given: Sequence[Any]) -> Column:
    return np.array(given, np.float64) if field.is_number else TextColumn.of(given)


def _holds_nan(column: Column, given: Sequence[Any] | UnsetType) -> bool:
    """Whether a NaN was given in a column of numbers, in which NaN stands for a missing value."""
    if isinstance(column, TextColumn) or given is UNSET:
        return False
    is_nan = np.isnan(column)
    # To count takes longer than to see that there is none.
    return bool(is_nan.any()) and int(np.count_nonzero(is_nan)) > given.count(None)


def _odd(field: Field, column: Column) -> list[int] | None:
    """Where a column's values are allowed but unusual; None if one is not allowed."""
    if isinstance(column, TextColumn):
        if field.kind == "ordered":
            return []
        seen = frozenset(field.seen_levels)
        unseen = [code for code, level in enumerate(column.levels) if level not in seen]
        if any(text_fault(column.levels[code]) for code in unseen):
            return None
        return np.flatnonzero(np.isin(column.codes, unseen)).tolist() if unseen else []
    # JSON holds no infinite number, but lists of values may. (Of a few loans, the functions np.any
    # and np.all take longer than the methods.)
    if np.isinf(column).any():
        return None
    if field.kind == "whole" and not ((column == np.rint(column)) | np.isnan(column)).all():
        return None
    if field.seen_range is None:
        return []
    low, high = field.seen_range
    return np.flatnonzero((column < low) | (column > high)).tolist()


def _ids(columns: Sequence[Sequence[Any]], size: int) -> Sequence[str | None] | None:
    """The loans' ids; None where they are not what they must be, or two of a loan are given."""
    given = [column for column in columns if column.count(UNSET) < size]
    if not given:
        return [None] * size
    if len(given) > 1:
        return None
    try:
        return [None if value is UNSET else check_id(value) for value in given[0]]
    except WrongValue:
        return None


def _struct(names: Sequence[str], kinds: list[Any], required: list[bool]) -> Any:
    """A structure with these names and no others; ids, which stand last, may always be absent."""
    attributes = [
        (f"f{i}", kind) if i < len(required) and required[i] else (f"f{i}", kind | UnsetType, UNSET)
        for i, kind in enumerate(kinds)
    ]
    return _structure(names, attributes, kw_only=True, forbid_unknown_fields=True)


def _structure(names: Sequence[str], attributes: Sequence[tuple[Any, ...]], **options: Any) -> Any:
    """A structure whose attributes have these names in JSON; nothing, if it can't have them."""
    if any(map(_ESCAPED.search, names)):
        return _NOTHING
    # A column may have any name, an attribute may not.
    rename = {attribute[0]: name for attribute, name in zip(attributes, names, strict=True)}
    return msgspec.defstruct("Loan", attributes, rename=rename, gc=False, **options)


def _type(field: Field) -> Any:
    """What JSON must hold for a value of a field; the rest is checked after reading."""
    kind: Any = str
    if field.is_number:
        low: dict[str, Any] = {}
        if field.above is not None and (field.min is None or field.above >= field.min):
            low = {"gt": field.above}
        elif field.min is not None:
            low = {"ge": field.min}
        high = {} if field.max is None else {"le": field.max}
        kind = Annotated[float, Meta(**low, **high)]  # type: ignore[call-overload]
    elif field.kind == "ordered":
        kind = Literal[field.levels]
    return kind | None if field.missing else kind
