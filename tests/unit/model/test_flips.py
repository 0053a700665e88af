"""Flips equal those that brute force finds, and the model confirms each of them."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import FORMATS
from peerloan.loan import Checks, Definition, Field, Label, Loans, Value
from peerloan.model import (
    Flip,
    LevelTable,
    NumberTable,
    Policy,
    ReferenceProfile,
    Scorecard,
    find_flips,
)
from peerloan.model.arithmetic import UNIT, probability
from peerloan.registry import Bundle

LABEL = Label("y", 1, 0)
BUNDLES = {kind: next((FORMATS / f"format-1-{kind}").glob("*/")) for kind in ("scorecard", "onnx")}
# Loans of the brute force on a stored version.
LOANS = 1_000


def policy_at(margin: float) -> Policy:
    """A policy whose threshold is exactly this margin."""
    return Policy("cost", 20.0, probability(margin), margin, (margin - 1, margin, margin + 1))


def profile_of(definition: Definition, rows: list[tuple[Value, ...]]) -> ReferenceProfile:
    """The profile of a few loans."""
    loans = Loans.of(definition, rows)
    return ReferenceProfile.of(loans, np.zeros(loans.size), np.full(loans.size, 0.5))


def one_number(
    edges: tuple[float, ...], points: tuple[float, ...], value: Value, **field: Any
) -> list[Flip]:
    """The flips of a loan with one number; it is late if its points are at least 0."""
    settings: dict[str, Any] = {"kind": "number", "label": "N"} | field
    definition = Definition("m", LABEL, (Field("n", **settings),))
    card = Scorecard(0.0, (NumberTable("n", edges, points, 1.0),))
    profile = profile_of(definition, [(50.0,), (50.0,), (50.0,)])
    return find_flips(card, policy_at(0.0), definition, profile, (value,))


def numbers(flips: list[Flip]) -> list[tuple[object, object]]:
    """The values and directions of flips."""
    return [(flip.value, flip.direction) for flip in flips]


def test_a_number_is_the_nearest_in_each_direction() -> None:
    edges, points = (10.0, 20.0, 30.0, 40.0, 60.0), (1.0, -1.0, -1.0, -2.0, 1.0, 1.0)
    flips = one_number(edges, points, 25.0)
    assert numbers(flips) == [(40.0, "up"), (9.999, "down")]
    assert all(flip.late and flip.probability == probability(1.0) for flip in flips)


def test_without_a_flip_there_is_none() -> None:
    assert one_number((10.0,), (1.0, 2.0), 5.0) == []
    assert one_number((), (1.0,), 5.0) == []


@pytest.mark.parametrize(
    ("edge", "value", "field", "expected"),
    [
        (0.123456789, 0.1, {}, 0.1235),
        (0.123456789, 0.2, {}, 0.1234),
        (64_321.5, 0.0, {}, 64_330.0),
        (64_321.5, 70_000.0, {}, 64_320.0),
        (65_000.0, 70_000.0, {}, 64_990.0),
        (1_000.0, 2_000.0, {}, 999.9),
        (-0.123456789, 1.0, {}, -0.1235),
        (-0.123456789, -1.0, {}, -0.1234),
        (-0.0, -1.0, {}, 0.0),
        # The range allows only some of the numbers.
        (0.123456789, 0.1, {"max": 0.12346}, 0.12346),
        (0.123456789, 0.1, {"max": 0.123456789}, 0.123456789),
        (0.123456789, 0.1, {"max": 0.1234}, None),
        (0.123456789, 0.2, {"min": 0.12345}, 0.12345),
        (0.123456789, 0.2, {"above": 0.12345}, 0.123456),
        (0.5, 0.7, {"above": 0.5}, None),
        (0.5, 0.7, {"min": 0.5}, None),
        # A whole number is not rounded.
        (12_345.5, 1.0, {"kind": "whole"}, 12_346.0),
        (12_345.5, 20_000.0, {"kind": "whole"}, 12_345.0),
        (12_345.0, 20_000.0, {"kind": "whole"}, 12_344.0),
        (12_345.5, 1.0, {"kind": "whole", "max": 12_345}, None),
        (2.0**60, 2.0**61, {"kind": "whole"}, 2.0**60 - 128),
    ],
)
def test_a_number_is_rounded_away_from_the_edge(
    edge: float, value: float, field: dict[str, Any], expected: float | None
) -> None:
    points = (-1.0, 1.0) if value < edge else (1.0, -1.0)
    flips = one_number((edge,), points, value, **field)
    direction = "up" if value < edge else "down"
    assert numbers(flips) == ([] if expected is None else [(expected, direction)])
    assert all(math.copysign(1, flip.value) > 0 for flip in flips if flip.value == 0.0)


def test_a_narrow_interval_gets_more_digits() -> None:
    low, high = 0.123456, math.nextafter(0.123456, 1)
    for value, direction in ((0.0, "up"), (1.0, "down")):
        flips = one_number((low, high), (-1.0, 1.0, -1.0), value)
        assert numbers(flips) == [(low, direction)]


def test_an_interval_that_the_field_does_not_allow_is_passed_over() -> None:
    edges, points = (1.25, 1.75, 3.5), (-1.0, 1.0, -1.0, 1.0)
    assert numbers(one_number(edges, points, 1.0, kind="whole")) == [(4.0, "up")]


def test_a_missing_number_has_no_direction() -> None:
    # A missing value has 1 point, and the median is 50.
    for edges, points, expected in (
        ((40.0, 60.0), (1.0, -1.0, 1.0), [(50.0, None)]),
        ((40.0, 55.0), (-1.0, 1.0, -1.0), [(55.0, None)]),
        ((49.5, 60.0), (-1.0, 1.0, -1.0), [(49.49, None)]),
        ((40.0,), (1.0, 1.0), []),
    ):
        assert numbers(one_number(edges, points, None, missing=True)) == expected


def test_a_missing_value_is_a_flip_if_the_field_allows_it() -> None:
    assert numbers(one_number((), (-1.0,), 5.0, missing=True)) == [(None, None)]
    assert one_number((), (-1.0,), 5.0) == []


def test_levels_are_in_their_order_and_changeable_fields_first() -> None:
    levels = ("A", "B", "C", "D")
    definition = Definition(
        "m",
        LABEL,
        (
            Field("rank", "ordered", "Rank", levels=levels, missing=True, changeable=False),
            Field("kind", "category", "Kind", levels=("x", "True"), seen=("True", "y")),
        ),
    )
    card = Scorecard(
        0.0,
        (
            LevelTable("rank", levels, (1.0, -1.0, 1.0, 2.0), 0.0, 1.0),
            LevelTable("kind", ("True", "y"), (-1.0, 2.0), 2.0, 0.0),
        ),
    )
    profile = profile_of(definition, [("A", "y")])
    flips = find_flips(card, policy_at(0.0), definition, profile, ("B", "True"))
    assert [(flip.field, flip.level, flip.value, flip.changeable) for flip in flips] == [
        ("kind", "x", msgspec.UNSET, True),  # unseen in training, but listed
        ("kind", "y", msgspec.UNSET, True),
        ("rank", "A", msgspec.UNSET, False),
        ("rank", "C", msgspec.UNSET, False),
        ("rank", "D", msgspec.UNSET, False),
        ("rank", msgspec.UNSET, None, False),
    ]
    assert msgspec.json.decode(msgspec.json.encode(flips[-1])) == {
        "field": "rank",
        "value": None,
        "probability": probability(0.0),
        "late": True,
        "changeable": False,
    }


# Brute force


def around(edges: tuple[float, ...]) -> list[float]:
    """Every edge, the doubles beside it, and numbers far from all."""
    beside = [math.nextafter(edge, end) for edge in edges for end in (-math.inf, math.inf)]
    middle = [(low + high) / 2 for low, high in itertools.pairwise(sorted(edges))]
    wholes = [float(whole(edge)) for edge in edges for whole in (math.floor, math.ceil)]
    below = [number - 1 for number in wholes]
    return [*edges, *beside, *middle, *wholes, *below, -1e9, 0.0, 1e9]


def accepted(definition: Definition, values: tuple[Value, ...]) -> bool:
    """Whether a request with these values is valid."""
    loan = dict(zip(definition.names, values, strict=True))
    return not Checks(definition).loan(loan).problems


def compare_with_brute_force(
    card: Scorecard,
    policy: Policy,
    definition: Definition,
    profile: ReferenceProfile,
    values: tuple[Value, ...],
) -> int:
    """Check the flips of a loan against all edges and levels; return their number."""
    late = policy.late(card.margin(values))
    flips = find_flips(card, policy, definition, profile, values)
    for position, (field, table) in enumerate(zip(definition.fields, card.tables, strict=True)):
        present = values[position]

        def changed(other: Value, position: int = position) -> tuple[Value, ...]:
            return (*values[:position], other, *values[position + 1 :])

        def is_flip(other: Value) -> bool:
            return policy.late(card.margin(changed(other))) != late

        own = [flip for flip in flips if flip.field == field.name]
        for flip in own:
            other = flip.value if flip.level is msgspec.UNSET else flip.level
            assert accepted(definition, changed(other)), "a what_if can ask for it"  # type: ignore[arg-type]
            assert is_flip(other)  # type: ignore[arg-type]
            margin = card.margin(changed(other))  # type: ignore[arg-type]
            assert (flip.late, flip.probability) == (not late, probability(margin))
            assert flip.changeable == field.changeable
            assert flip.found_by is None
        missing = [flip for flip in own if flip.value is None]
        assert len(missing) == (field.missing and present is not None and is_flip(None))
        if isinstance(table, LevelTable):
            listed = field.levels if field.kind == "ordered" else (*field.levels, *table.levels)
            expected = {level for level in listed if level != present and is_flip(level)}
            found = [flip.level for flip in own if flip.value is not None]
            assert set(found) == expected
            assert len(found) == len(expected)
            continue
        tried = [number for number in around(table.edges) if accepted(definition, changed(number))]
        turning = [number for number in tried if is_flip(number)]
        found_numbers = {
            flip.direction: flip.value for flip in own if isinstance(flip.value, float)
        }
        assert len(found_numbers) == len(own) - len(missing)
        if present is None:
            assert set(found_numbers) == ({None} if turning else set())
            continue
        sides = {
            "up": [number for number in turning if number > present],  # type: ignore[operator]
            "down": [number for number in turning if number < present],  # type: ignore[operator]
        }
        assert set(found_numbers) == {side for side, those in sides.items() if those}
        for side, number in found_numbers.items():
            nearest = min(sides[str(side)], key=lambda each: abs(each - present))  # type: ignore[operator]
            # Only rounding lies between: both are in the interval that is the nearest.
            edges = np.array(table.edges)
            assert np.searchsorted(edges, number, "right") == np.searchsorted(
                edges, nearest, "right"
            )
            assert abs(number - present) >= abs(nearest - present) - 1e-300  # type: ignore[operator]
    return len(flips)


_points = st.integers(-4, 4).map(float) | st.integers(-(2**34), 2**34).map(lambda n: n * UNIT)
_edge = st.integers(-30, 30).map(lambda n: n / 4) | st.floats(-1e4, 1e4, allow_subnormal=False)
LEVELS = ("a", "b", "c", "d", "e")


@st.composite
def number_fields(draw: st.DrawFn, name: str) -> tuple[Field, NumberTable]:
    """A number field with a random range, and its table."""
    edges = tuple(sorted(draw(st.sets(_edge, max_size=6))))
    points = draw(st.lists(_points, min_size=len(edges) + 1, max_size=len(edges) + 1))
    low: dict[str, Any] = {
        draw(st.sampled_from(["min", "above"])): draw(st.none() | st.floats(-9, -1))
    }
    field = Field(
        name,
        draw(st.sampled_from(["number", "whole"])),
        "N",
        **low,
        max=draw(st.none() | st.floats(1, 9)),
        missing=draw(st.booleans()),
        changeable=draw(st.booleans()),
    )
    return field, NumberTable(name, edges, tuple(points), draw(_points))


@st.composite
def level_fields(draw: st.DrawFn, name: str) -> tuple[Field, LevelTable]:
    """A text field, and its table, which may lack some levels."""
    levels = tuple(draw(st.lists(st.sampled_from(LEVELS), unique=True, max_size=4)))
    field = Field(
        name,
        draw(st.sampled_from(["category", "ordered"])),
        "L",
        levels=LEVELS[:3],
        missing=draw(st.booleans()),
        changeable=draw(st.booleans()),
    )
    points = draw(st.lists(_points, min_size=len(levels), max_size=len(levels)))
    return field, LevelTable(name, levels, tuple(points), draw(_points), draw(_points))


@st.composite
def cases(
    draw: st.DrawFn,
) -> tuple[Scorecard, Policy, Definition, ReferenceProfile, tuple[Value, ...]]:
    """A scorecard, a policy, and a valid loan."""
    kinds = draw(st.lists(st.booleans(), min_size=1, max_size=4))
    parts: list[tuple[Field, NumberTable | LevelTable]] = []
    for i, is_number in enumerate(kinds):
        parts.append(draw(number_fields(f"f{i}")) if is_number else draw(level_fields(f"f{i}")))
    definition = Definition("m", LABEL, tuple(field for field, _ in parts))
    card = Scorecard(draw(_points), tuple(table for _, table in parts))
    values: list[Value] = []
    for field, table in parts:
        if field.missing and draw(st.integers(0, 3)) == 0:
            values.append(None)
        elif isinstance(table, LevelTable):
            values.append(draw(st.sampled_from(field.levels)))
        else:
            near = [n for n in around(table.edges) if field.within(n)]
            wholes = [n for n in near if n.is_integer()]
            values.append(draw(st.sampled_from(near if field.kind == "number" else wholes)))
    usual = tuple(0.0 if field.is_number else "a" for field in definition.fields)
    profile = profile_of(definition, [usual])
    return card, policy_at(draw(_points)), definition, profile, tuple(values)


@given(cases())
def test_flips_equal_brute_force(
    case: tuple[Scorecard, Policy, Definition, ReferenceProfile, tuple[Value, ...]],
) -> None:
    card, _, definition, _, values = case
    card.check(definition)
    assert accepted(definition, values)
    compare_with_brute_force(*case)


def test_flips_equal_brute_force_on_a_thousand_loans() -> None:
    bundle = Bundle.read(BUNDLES["scorecard"])
    assert isinstance(bundle.model, Scorecard)
    loans = bundle.profile.draw(bundle.definition, LOANS, seed=9).rows()
    middle = float(np.median([bundle.model.margin(loan) for loan in loans]))
    counts = [
        compare_with_brute_force(
            bundle.model, policy_at(middle), bundle.definition, bundle.profile, loan
        )
        for loan in loans
    ]
    assert len(counts) == LOANS
    assert sum(count > 0 for count in counts) > LOANS / 2


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.booleans())
def test_numbers_have_few_digits(edge: float, is_up: bool) -> None:
    value = edge + 1e7 * (-1 if is_up else 1)
    (flip,) = one_number((edge,), (-1.0, 1.0) if is_up else (1.0, -1.0), value)
    assert isinstance(flip.value, float)
    digits = Decimal(repr(flip.value)).normalize().as_tuple().digits
    assert len(digits) <= 4
    assert flip.value == pytest.approx(edge, rel=2e-3)


# Models without tables


def test_an_onnx_version_is_searched_over_its_profile() -> None:
    bundle = Bundle.read(BUNDLES["onnx"])
    loans = bundle.profile.draw(bundle.definition, 60, seed=9).rows()
    middle = float(np.median([bundle.model.margin(loan) for loan in loans]))
    policy = policy_at(middle)
    kinds = set()
    for loan in loans:
        late = policy.late(bundle.model.margin(loan))
        flips = find_flips(bundle.model, policy, bundle.definition, bundle.profile, loan)
        for flip in flips:
            position = bundle.definition.names.index(flip.field)
            other = flip.value if flip.level is msgspec.UNSET else flip.level
            changed = (*loan[:position], other, *loan[position + 1 :])
            margin = bundle.model.margin(changed)  # type: ignore[arg-type]
            assert policy.late(margin) == flip.late == (not late)
            assert flip.probability == pytest.approx(probability(margin), abs=1e-6)
            assert flip.found_by == "search"
            column = bundle.profile.columns[position]
            if isinstance(other, float):
                assert other in column.quantiles  # type: ignore[union-attr]
                present = loan[position]
                if present is not None:
                    low, high = sorted((float(present), other))
                    between = [q for q in column.quantiles if low < q < high]  # type: ignore[union-attr]
                    for number in between:
                        nearer = (*loan[:position], number, *loan[position + 1 :])
                        assert policy.late(bundle.model.margin(nearer)) == late
            kinds.add((type(other), flip.direction))
    assert {(float, "up"), (float, "down"), (str, None), (type(None), None)} <= kinds


def test_a_definition_with_many_fields_is_confirmed_in_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = Bundle.read(BUNDLES["onnx"])
    (loan,) = bundle.profile.draw(bundle.definition, 1, seed=3).rows()
    policy = policy_at(bundle.model.margin(loan) + UNIT)
    arguments = (bundle.model, policy, bundle.definition, bundle.profile, loan)
    at_once = find_flips(*arguments)
    monkeypatch.setattr("peerloan.model.flips._MAX_BATCH_VALUES", 7)
    assert find_flips(*arguments) == at_once != []
