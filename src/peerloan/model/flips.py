"""Flips: values of single fields with which the decision on a loan would be the other one.

A scorecard's tables are intervals and levels with points, so its flips are exact: the nearest
interval on each side of the present number, and every level. An ONNX model has no tables, so its
flips are searched for among the values of the reference profile.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from peerloan.loan import Definition, Field, Loans, Value
from peerloan.loan.spelling import Spelling
from peerloan.model.arithmetic import probability
from peerloan.model.onnx_model import OnnxModel
from peerloan.model.policy import Policy
from peerloan.model.reference_profile import NumberProfile, ReferenceProfile
from peerloan.model.scorecard import NumberTable, Scorecard

Direction = Literal["up", "down"]
# Numbers are rounded to at least 4 significant digits; 17 digits are exact.
_LEAST_DIGITS, _EXACT_DIGITS = 4, 17
# Most values of a batch of changed loans. It bounds the memory for definitions with many fields.
_MAX_BATCH_VALUES = 200_000


class Flip(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A value of one field with which the decision would be the other one.

    `value` is a number, or None for a missing value; `level` is a text. One of them is set.
    `direction` is None for a level, for a missing value, and if the present number is missing.
    `probability` and `late` are the model's results for the loan with this value. `changeable` is
    whether borrowers can change the field by themselves. `found_by` is "search" if only some values
    were tried.
    """

    field: str
    value: float | msgspec.UnsetType | None = msgspec.UNSET
    level: str | msgspec.UnsetType = msgspec.UNSET
    direction: Direction | None = None
    probability: float
    late: bool
    changeable: bool
    found_by: Literal["search"] | None = None


class _Change(NamedTuple):
    """Another value of the field at a position."""

    position: int
    value: Value


def find_flips(
    model: Scorecard | OnnxModel,
    policy: Policy,
    definition: Definition,
    profile: ReferenceProfile,
    values: Sequence[Value],
) -> list[Flip]:
    """Find the values of each field that change the decision on a loan by themselves.

    `values` are checked, and in the order of the fields. Of numbers, the nearest one in each
    direction is returned; if the present number is missing, the one nearest to the median. Of
    texts, every level is returned. The model has confirmed each flip. Fields that borrowers can
    change come first, then the order is the definition's. Raises OnnxTimeLimit if an ONNX model
    takes too long.
    """
    fields = definition.fields
    references = [
        profile.usual(field.name) if value is None else value
        for field, value in zip(fields, values, strict=True)
    ]
    late = policy.late(model.margin(values))
    if isinstance(model, Scorecard):
        candidates = _from_tables(model, policy, definition, values, references)
    else:
        candidates = _from_profile(definition, profile)
    missing = (_Change(i, None) for i, field in enumerate(fields) if field.missing)
    changes = [
        change for change in chain(candidates, missing) if change.value != values[change.position]
    ]
    margins = zip(changes, _margins(model, definition, values, changes), strict=True)
    confirmed = {change: margin for change, margin in margins if policy.late(margin) != late}
    nearest = _only_nearest(confirmed, values, references)
    nearest.sort(key=lambda change: (not fields[change.position].changeable, change.position))
    found_by: Literal["search"] | None = None if isinstance(model, Scorecard) else "search"
    return [
        Flip(
            field=fields[change.position].name,
            value=msgspec.UNSET if isinstance(change.value, str) else change.value,
            level=change.value if isinstance(change.value, str) else msgspec.UNSET,
            direction=_direction(change.value, values[change.position]),
            probability=probability(confirmed[change]),
            late=not late,
            changeable=fields[change.position].changeable,
            found_by=found_by,
        )
        for change in nearest
    ]


def _from_tables(
    model: Scorecard,
    policy: Policy,
    definition: Definition,
    values: Sequence[Value],
    references: Sequence[Value],
) -> Iterator[_Change]:
    """Yield every level, and the nearest numbers that flip the decision by the tables."""
    margin, contributions = model.score(values)
    for position, (field, table) in enumerate(zip(definition.fields, model.tables, strict=True)):
        other_points = margin - contributions[position]  # exact: see `arithmetic`
        if not isinstance(table, NumberTable):
            for level in _levels(field, table.levels):
                yield _Change(position, level)
        elif (reference := references[position]) is not None:
            is_flip = [
                policy.late(other_points + points) != policy.late(margin) for points in table.points
            ]
            for number in _nearest_numbers(field, table.edges, is_flip, float(reference)):
                yield _Change(position, number)


def _from_profile(definition: Definition, profile: ReferenceProfile) -> Iterator[_Change]:
    """Yield the quantiles and levels of the profile."""
    for position, (field, column) in enumerate(
        zip(definition.fields, profile.columns, strict=True)
    ):
        if isinstance(column, NumberProfile):
            for number in column.quantiles:
                if _is_valid(field, number):
                    yield _Change(position, number)
        else:
            for level in _levels(field, column.levels):
                yield _Change(position, level)


def _levels(field: Field, levels: Iterable[str]) -> Iterable[str]:
    """Return the levels of a text field: the listed ones, and for a category also `levels`."""
    if field.kind == "ordered":
        return field.levels
    return dict.fromkeys(map(Spelling.of(field), (*field.levels, *levels)))


def _nearest_numbers(
    field: Field, edges: Sequence[float], is_flip: Sequence[bool], reference: float
) -> Iterator[float]:
    """Yield the nearest valid number of a flip at the reference, above it and below it.

    `is_flip[i]` is whether the numbers with edges[i−1] ≤ number < edges[i] flip the decision.
    """
    ends = (-math.inf, *edges, math.inf)
    at = bisect_right(edges, reference)
    if is_flip[at] and _is_valid(field, reference):
        yield reference
    above, below = range(at + 1, len(is_flip)), range(at - 1, -1, -1)
    for intervals, round_into in ((above, _lowest), (below, _highest)):
        numbers = (round_into(field, ends[i], ends[i + 1]) for i in intervals if is_flip[i])
        nearest = next((number for number in numbers if number is not None), None)
        if nearest is not None:
            yield nearest


def _lowest(field: Field, low: float, high: float) -> float | None:
    """Return the lowest valid number of low ≤ number < high, rounded up; None if there is none."""
    exact = float(math.ceil(low)) if field.kind == "whole" else low
    return _rounded(field, exact, ROUND_CEILING, lambda number: low <= number < high)


def _highest(field: Field, low: float, high: float) -> float | None:
    """Return the highest valid number of low ≤ number < high, rounded down; None if none is."""
    exact = math.nextafter(high, -math.inf)
    if field.kind == "whole" and math.isfinite(exact):
        exact = float(math.floor(exact))
    return _rounded(field, exact, ROUND_FLOOR, lambda number: low <= number < high)


def _rounded(
    field: Field, exact: float, rounding: str, is_inside: Callable[[float], bool]
) -> float | None:
    """Round to the fewest digits with which the number is valid and inside its interval."""
    if not (is_inside(exact) and _is_valid(field, exact)):
        return None
    if field.kind != "whole":
        number = Decimal(repr(exact))
        for digits in range(_LEAST_DIGITS, _EXACT_DIGITS):
            unit = Decimal(1).scaleb(number.adjusted() - digits + 1)
            rounded = float(number.quantize(unit, rounding))
            if is_inside(rounded) and _is_valid(field, rounded):
                return rounded + 0.0  # −0 becomes 0
    return exact + 0.0


def _is_valid(field: Field, number: float) -> bool:
    """Whether a field accepts a number."""
    return (
        math.isfinite(number)
        and field.within(number)
        and (field.kind != "whole" or number.is_integer())
    )


def _margins(
    model: Scorecard | OnnxModel,
    definition: Definition,
    values: Sequence[Value],
    changes: Sequence[_Change],
) -> Iterator[float]:
    """Yield the model's margin of the loan with each of the changes alone."""
    size = max(1, _MAX_BATCH_VALUES // len(values))
    for start in range(0, len(changes), size):
        rows = [
            (*values[:position], value, *values[position + 1 :])
            for position, value in changes[start : start + size]
        ]
        yield from model.margins(Loans.of(definition, rows)).tolist()


def _only_nearest(
    changes: Iterable[_Change], values: Sequence[Value], references: Sequence[Value]
) -> list[_Change]:
    """Return the changes without numbers that have a nearer one in their direction.

    Of a field, the nearest number is first, and a missing value is last.
    """

    def distance(change: _Change) -> float:
        reference = references[change.position]
        if isinstance(change.value, int | float) and isinstance(reference, int | float):
            return abs(change.value - reference)
        return math.inf if change.value is None else 0.0

    nearest: dict[tuple[int, Value], _Change] = {}
    for change in sorted(changes, key=distance):
        position, value = change
        is_number = isinstance(value, int | float)
        key = _direction(value, values[position]) if is_number else value
        nearest.setdefault((position, key), change)
    return [*nearest.values()]


def _direction(value: Value, present: Value) -> Direction | None:
    """Return the direction of a number from the present one; None if either is not a number."""
    if not isinstance(value, int | float) or not isinstance(present, int | float):
        return None
    return "up" if value > present else "down"
