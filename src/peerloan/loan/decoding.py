"""Decode JSON to checked loans in one step: the fast path for valid requests.

A decoder is compiled from the definition: types, ranges and levels are checked while JSON is
parsed. It returns None for anything invalid, and for some unusual but valid JSON; the caller then
uses `Checks`, which is slower and describes each problem. Both give the same values. If a field's
name needs an escape in JSON (a quotation mark, a backslash), the decoder always returns None.
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
# Characters that JSON escapes: the name of a msgspec field may not contain them.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
# A type that no JSON value has.
_NOTHING = Annotated[int, Meta(gt=0, lt=0)]
_REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class CheckedLoans:
    """Checked loans as columns, with their ids, and warnings by position.

    `values_by_field` equals `loans.values_by_field()`; the decoder already has these lists.
    """

    loans: Loans
    values_by_field: Sequence[Sequence[Value]]
    loan_ids: Sequence[str | None]
    warnings: dict[int, list[LoanWarning]]

    @classmethod
    def of(cls, definition: Definition, checked: Sequence[Checked]) -> CheckedLoans:
        """Make columns of loans that were checked one by one and have no problems."""
        loans = Loans.of(definition, [loan.values for loan in checked])
        warnings = {i: loan.warnings for i, loan in enumerate(checked) if loan.warnings}
        return cls(loans, loans.values_by_field(), [loan.loan_id for loan in checked], warnings)


class Decoder:
    """Decodes loans of one definition.

    Methods return None if a loan is invalid or too unusual for the fast path: check it with
    `Checks` then. Pass the same `suggestions` for all calls of a request, to bound their cost; by
    default each call has new ones. Thread-safe.
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
        """Decode one loan, a JSON object."""
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
        for id_value in read[self._width :]:
            if id_value is not UNSET:
                if loan_id is not None:
                    return None
                try:
                    loan_id = check_id(id_value)
                except WrongValue:
                    return None
        for i in self._whole:
            if values[i] is not None and not values[i].is_integer():
                return None
        unusual = [
            i
            for i, low, high in self._ranges
            if (value := values[i]) is not None and not low <= value <= high
        ]
        for i, seen in self._levels:
            if values[i] not in seen:
                spelling = self._spellings[i]
                if text_fault(values[i]) or (spelling and spelling(values[i]) != values[i]):
                    return None
                unusual.append(i)
        if not unusual:
            return Checked(values, loan_id)
        suggestions = suggestions or Suggestions()
        # In the order of the fields, as from `Checks`.
        warnings = [
            warning
            for i in sorted(unusual)
            if (warning := unusual_value(self._fields[i], values[i], suggestions)) is not None
        ]
        return Checked(values, loan_id, [], warnings)

    def loans(
        self, content: bytes, most: int, suggestions: Suggestions | None = None
    ) -> CheckedLoans | None:
        """Decode a JSON array of at most `most` loans."""
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
        """Check at most `most` loans that are given as columns: lists of JSON values by name."""
        try:
            read = msgspec.structs.astuple(msgspec.convert(columns, self._lists))
        except _REFUSED:
            return None
        checked = self._sized(read, most, suggestions)
        # Python's JSON parser accepts NaN. It is a wrong value, not a missing one.
        if checked is None or any(map(_holds_nan, checked.loans.columns.values(), read)):
            return None
        return checked

    def _sized(
        self, read: Sequence[Any], most: int, suggestions: Suggestions | None
    ) -> CheckedLoans | None:
        """Give absent columns the length of the others; None if lengths differ."""
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
        checked: dict[str, Column] = {}
        values_by_field: list[Sequence[Value]] = []
        warnings: dict[int, list[LoanWarning]] = {}
        for field, spelling, values in zip(self._fields, self._spellings, columns, strict=False):
            if field.missing and UNSET in values:
                values = [None if value is UNSET else value for value in values]
            column = _column(field, values)
            if isinstance(column, TextColumn) and spelling is not None:
                respelled = column.respelled(spelling)
                if respelled is not column:
                    column, values = respelled, respelled.values()
            unusual = _unusual_places(field, column)
            if unusual is None:
                return None
            checked[field.name] = column
            values_by_field.append(values)
            for i in unusual:
                if warning := unusual_value(field, values[i], suggestions):
                    warnings.setdefault(i, []).append(warning)
        if ids is None:
            return None
        loans = Loans(self._definition, checked, size)
        return CheckedLoans(loans, values_by_field, ids, warnings)


class StoredLoanDecoder:
    """Decodes stored loans, which were checked before they were stored; ignores other names."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._spellings = [Spelling.of(field) for field in definition.fields]
        loan = _structure(
            definition.names,
            [(f"f{i}", _type(field) | None, None) for i, field in enumerate(definition.fields)],
        )
        self._list = msgspec.json.Decoder(list[loan])  # type: ignore[valid-type]

    def loans(self, content: bytes) -> Loans | None:
        """Decode a JSON array of loans; None if one of them is not valid for the fast path."""
        try:
            read = self._list.decode(content)
        except _REFUSED:
            return None
        by_field = zip(*map(msgspec.structs.astuple, read), strict=True)
        columns: dict[str, Column] = {}
        for field, spelling, values in zip(
            self._definition.fields, self._spellings, by_field, strict=True
        ):
            column = _column(field, values)
            if isinstance(column, TextColumn):
                column = column.respelled(spelling)
            absent = column.codes < 0 if isinstance(column, TextColumn) else np.isnan(column)
            if (not field.missing and np.any(absent)) or _unusual_places(field, column) is None:
                return None
            columns[field.name] = column
        return Loans(self._definition, columns, len(read))


def unusual_values(loans: Loans, suggestions: Suggestions) -> dict[int, list[LoanWarning]]:
    """The warnings about checked loans, by position: the same as from `Checks`."""
    warnings: dict[int, list[LoanWarning]] = {}
    for field in loans.definition.fields:
        column = loans.columns[field.name]
        unusual = _unusual_places(field, column) or []
        values = column_values(column.take(np.array(unusual, dtype=np.int64)))
        for i, value in zip(unusual, values, strict=True):
            if warning := unusual_value(field, value, suggestions):  # type: ignore[arg-type]
                warnings.setdefault(i, []).append(warning)
    return warnings


def unusual_rows(loans: Loans) -> npt.NDArray[np.bool_]:
    """A mask (n,) of the loans with a warning, as `unusual_values`, with rounded seen ranges."""
    unusual = np.zeros(loans.size, dtype=np.bool_)
    for field in loans.definition.fields:
        column = loans.columns[field.name]
        if isinstance(column, TextColumn):
            unusual[_unusual_places(field, column) or []] = True
        elif (seen := field.seen_range_rounded) is not None:
            unusual |= (column < seen[0]) | (column > seen[1])
    return unusual


def may_have_duplicate_names(content: bytes, names: int) -> bool:
    """Whether JSON with this number of distinct names may contain a name twice.

    Each name is followed by a colon, and few values contain a colon, so colons are counted.
    """
    return content.count(b":") != names and len(_COLON.findall(content)) != names


def _column(field: Field, values: Sequence[Any]) -> Column:
    return np.array(values, np.float64) if field.is_number else TextColumn.of(values)


def _holds_nan(column: Column, values: Sequence[Any] | UnsetType) -> bool:
    """Whether the values of a number column include NaN; in `column` it means missing."""
    if isinstance(column, TextColumn) or values is UNSET:
        return False
    is_nan = np.isnan(column)
    # First the faster check: most columns have no NaN.
    return bool(is_nan.any()) and int(np.count_nonzero(is_nan)) > values.count(None)


def _unusual_places(field: Field, column: Column) -> list[int] | None:
    """The positions of valid but unusual values; None if a value is not valid."""
    if isinstance(column, TextColumn):
        if field.kind == "ordered":
            return []
        seen = frozenset(field.seen_levels)
        unseen = [code for code, level in enumerate(column.levels) if level not in seen]
        if any(text_fault(column.levels[code]) for code in unseen):
            return None
        return np.flatnonzero(np.isin(column.codes, unseen)).tolist() if unseen else []
    # JSON has no infinite numbers, but lists of values may. (For few loans, the functions np.any
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
    """The loans' ids; None if an id is not valid, or if more than one column has ids."""
    present = [column for column in columns if column.count(UNSET) < size]
    if not present:
        return [None] * size
    if len(present) > 1:
        return None
    try:
        return [None if value is UNSET else check_id(value) for value in present[0]]
    except WrongValue:
        return None


def _struct(names: Sequence[str], kinds: list[Any], required: list[bool]) -> Any:
    """A structure that allows only these names; the last ones, of ids, may be absent."""
    attributes = [
        (f"f{i}", kind) if i < len(required) and required[i] else (f"f{i}", kind | UnsetType, UNSET)
        for i, kind in enumerate(kinds)
    ]
    return _structure(names, attributes, kw_only=True, forbid_unknown_fields=True)


def _structure(names: Sequence[str], attributes: Sequence[tuple[Any, ...]], **options: Any) -> Any:
    """A structure whose attributes have these JSON names; a type without values if it can't."""
    if any(map(_ESCAPED.search, names)):
        return _NOTHING
    # A field may have any name, but an attribute must be an identifier.
    rename = {attribute[0]: name for attribute, name in zip(attributes, names, strict=True)}
    return msgspec.defstruct("Loan", attributes, rename=rename, gc=False, **options)


def _type(field: Field) -> Any:
    """The type of a field's JSON value, with its range or levels; the rest is checked later."""
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
