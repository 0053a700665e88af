"""The scorecard: look-ups in its tables, exact sums, and equal results for one loan and many."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peerloan.loan import Definition, Field, Label, Loans, Value
from peerloan.model import LevelTable, NumberTable, Scorecard, probabilities
from peerloan.model.arithmetic import MAX_MARGIN, UNIT, margin, probability, to_unit
from peerloan.model.scorecard import ScorecardError

DEFINITION = Definition(
    "m",
    Label("y", 1, 0),
    (
        Field("a", "number", "A", missing=True),
        Field("b", "category", "B", missing=True),
        Field("c", "ordered", "C", levels=("low", "high"), missing=True),
    ),
)
CARD = Scorecard(
    -3.5,
    (
        NumberTable("a", (0.0, 10.0), (-1.0, 0.25, 2.0), missing=0.5),
        LevelTable("b", ("x", "y"), (1.0, -1.0), unseen=0.125, missing=0.75),
        LevelTable("c", ("low", "high"), (-0.5, 0.5), unseen=0.0, missing=-0.25),
    ),
)


def test_a_scorecard_fits_its_definition() -> None:
    CARD.check(DEFINITION)


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ((-1e300, "x", "low"), (-1.0, 1.0, -0.5)),
        ((-5e-324, "x", "low"), (-1.0, 1.0, -0.5)),
        ((0.0, "y", "high"), (0.25, -1.0, 0.5)),
        ((-0.0, "y", "high"), (0.25, -1.0, 0.5)),
        ((5e-324, "y", "high"), (0.25, -1.0, 0.5)),
        ((math.nextafter(10, 0), "z", None), (0.25, 0.125, -0.25)),
        ((10.0, "", "low"), (2.0, 0.125, -0.5)),
        ((1.7976931348623157e308, None, "low"), (2.0, 0.75, -0.5)),
        ((None, None, None), (0.5, 0.75, -0.25)),
    ],
)
def test_points_of_values(values: tuple[Value, ...], points: tuple[float, ...]) -> None:
    assert CARD.score(values) == (-3.5 + sum(points), points)
    assert CARD.margin(values) == -3.5 + sum(points)
    many, contributions = CARD.score_many(Loans.of(DEFINITION, [values]))
    assert many.tolist() == [-3.5 + sum(points)]
    assert contributions.tolist() == [list(points)]


def test_a_scorecard_is_the_same_after_json() -> None:
    again = msgspec.json.decode(msgspec.json.encode(CARD), type=Scorecard)
    assert again == CARD


def test_a_table_may_have_no_edges_and_no_levels() -> None:
    card = Scorecard(
        0.0,
        (
            NumberTable("a", (), (1.0,), missing=2.0),
            LevelTable("b", (), (), unseen=3.0, missing=4.0),
            LevelTable("c", ("low", "high"), (5.0, 6.0), unseen=7.0, missing=8.0),
        ),
    )
    card.check(DEFINITION)
    rows: list[tuple[Value, ...]] = [(9.0, "x", "low"), (None, None, None)]
    assert [card.score(row)[1] for row in rows] == [(1.0, 3.0, 5.0), (2.0, 4.0, 8.0)]
    assert card.margins(Loans.of(DEFINITION, rows)).tolist() == [9.0, 14.0]


# Generated scorecards and loans

_points = st.integers(-(2**38), 2**38).map(lambda n: n * UNIT)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_level = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=3)


@st.composite
def number_tables(draw: st.DrawFn, name: str) -> NumberTable:
    odd = st.sampled_from([0.0, 5e-324, -5e-324, 1e308, -1e308, 2.0**-1074 * 3])
    edges = sorted(draw(st.sets(_finite | odd, max_size=6)))
    points = draw(st.lists(_points, min_size=len(edges) + 1, max_size=len(edges) + 1))
    return NumberTable(name, tuple(edges), tuple(points), draw(_points))


@st.composite
def level_tables(draw: st.DrawFn, name: str) -> LevelTable:
    levels = draw(st.lists(_level, unique=True, max_size=5))
    points = draw(st.lists(_points, min_size=len(levels), max_size=len(levels)))
    return LevelTable(name, tuple(levels), tuple(points), draw(_points), draw(_points))


@st.composite
def cards(draw: st.DrawFn) -> tuple[Definition, Scorecard]:
    fields = []
    tables: list[NumberTable | LevelTable] = []
    for i in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            tables.append(draw(number_tables(f"f{i}")))
            fields.append(Field(f"f{i}", "number", "F", missing=True))
        else:
            tables.append(draw(level_tables(f"f{i}")))
            fields.append(Field(f"f{i}", "category", "F", missing=True))
    definition = Definition("m", Label("y", 1, 0), tuple(fields))
    return definition, Scorecard(draw(_points), tuple(tables))


@st.composite
def values_of(draw: st.DrawFn, card: Scorecard) -> tuple[Value, ...]:
    values: list[Value] = []
    for table in card.tables:
        at: list[Any] = [None]
        if isinstance(table, NumberTable):
            for edge in table.edges:
                up, down = math.nextafter(edge, math.inf), math.nextafter(edge, -math.inf)
                at += [edge, -edge, *(value for value in (up, down) if math.isfinite(value))]
            values.append(draw(st.sampled_from([*at, -0.0]) | _finite))
        else:
            values.append(draw(st.sampled_from([*at, *table.levels]) | _level))
    return tuple(values)


@given(st.data())
def test_one_loan_and_many_get_bit_identical_scores(data: st.DataObject) -> None:
    definition, card = data.draw(cards())
    card.check(definition)
    rows = data.draw(st.lists(values_of(card), max_size=8))
    loans = Loans.of(definition, rows)
    assert loans.rows() == rows
    margins, contributions = card.score_many(loans)
    assert margins.shape == (len(rows),)
    assert contributions.shape == (len(rows), len(definition.fields))
    for i, row in enumerate(rows):
        one, points = card.score(row)
        assert one.hex() == float(margins[i]).hex()
        assert [p.hex() for p in points] == [p.hex() for p in contributions[i].tolist()]
        assert probability(one).hex() == float(probabilities(margins)[i]).hex()


@given(st.data())
def test_base_and_contributions_sum_to_the_margin_exactly_in_any_order(
    data: st.DataObject,
) -> None:
    _, card = data.draw(cards())
    margin_found, points = card.score(data.draw(values_of(card)))
    parts = data.draw(st.permutations([card.base, *points]))
    forward = 0.0
    for part in parts:
        forward += part
    assert forward == margin_found
    assert float(np.sum(np.array(parts))) == margin_found
    assert math.fsum(parts) == margin_found
    half = len(parts) // 2
    assert sum(parts[:half]) + sum(parts[half:]) == margin_found


@given(st.data())
def test_the_order_of_the_loans_does_not_matter(data: st.DataObject) -> None:
    definition, card = data.draw(cards())
    rows = data.draw(st.lists(values_of(card), min_size=1, max_size=6))
    order = data.draw(st.permutations(range(len(rows))))
    straight = card.margins(Loans.of(definition, rows))
    shuffled = card.margins(Loans.of(definition, [rows[i] for i in order]))
    assert [straight[i] for i in order] == shuffled.tolist()


# Arithmetic


@given(st.floats(-MAX_MARGIN, MAX_MARGIN))
@example(-1.1212676484137774)  # math.exp and numpy.exp round to different billionths
@example(-0.017026913352310658)
@example(0.4615754771512002)
@example(0.0)
@example(MAX_MARGIN)
@example(-MAX_MARGIN)
def test_a_probability_is_the_same_for_one_and_for_many(value: float) -> None:
    m = to_unit(value)
    one = probability(m)
    assert 0 <= one <= 1
    assert one == round(one, 9)
    assert one == pytest.approx(1 / (1 + math.exp(-m)), abs=6e-10)
    assert [one] * 9 == probabilities(np.array([m] * 9)).tolist()


def test_probabilities_agree_close_to_the_rounding_limit() -> None:
    """Margins whose probability is as close as possible to half-way between two billionths."""
    random = np.random.default_rng(5)
    p = (random.integers(10_000, 999_990_000, 200_000) + 0.5) / 1e9
    margins = np.log(p / (1 - p))
    margins = np.concatenate([margins, to_unit(margins)])
    assert probabilities(margins).tolist() == [probability(m) for m in margins.tolist()]


def test_no_margins_have_no_probabilities() -> None:
    assert probabilities(np.empty(0)).tolist() == []


@given(st.floats(-1e5, 1e5))
def test_rounding_gives_the_nearest_multiple(value: float) -> None:
    rounded = float(to_unit(value))
    assert (rounded / UNIT).is_integer()
    assert abs(rounded - value) <= UNIT / 2
    assert math.copysign(1, rounded) == 1 or rounded < 0  # never −0
    assert to_unit(np.array([value])).tolist() == [rounded]


@given(st.floats(1e-9, 1 - 1e-9))
def test_the_margin_of_a_probability_has_this_probability(p: float) -> None:
    assert probability(margin(p)) == pytest.approx(p, abs=2e-9)


# Invalid tables


def with_table(i: int, **changes: object) -> Scorecard:
    tables = list(CARD.tables)
    tables[i] = msgspec.structs.replace(tables[i], **changes)
    return msgspec.structs.replace(CARD, tables=tuple(tables))


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (msgspec.structs.replace(CARD, tables=CARD.tables[:2]), "the fields a, b, c, given a, b"),
        (msgspec.structs.replace(CARD, tables=()), "expected those of the fields a, b, c"),
        (msgspec.structs.replace(CARD, tables=CARD.tables[::-1]), "given c, b, a"),
        (with_table(0, feature="z"), "given z, b, c"),
        (
            msgspec.structs.replace(
                CARD, tables=(LevelTable("a", (), (), 0.0, 0.0), *CARD.tables[1:])
            ),
            "a: expected a number table, because the field is of the kind number",
        ),
        (
            msgspec.structs.replace(
                CARD, tables=(*CARD.tables[:2], NumberTable("c", (), (0.0,), 0.0))
            ),
            "c: expected a level table, because the field is of the kind ordered",
        ),
        (with_table(0, points=(1.0, 2.0)), "a: expected 3 points, given 2"),
        (with_table(0, points=()), "a: expected 3 points, given 0"),
        (with_table(1, points=(1.0, 2.0, 3.0)), "b: expected 2 points, given 3"),
        (with_table(0, edges=(10.0, 0.0)), "a: expected finite edges in ascending order"),
        (with_table(0, edges=(0.0, 0.0)), "a: expected distinct edges"),
        (with_table(0, edges=(-0.0, 0.0)), "a: expected distinct edges"),
        (with_table(0, edges=(0.0, float("nan"))), "a: expected finite edges"),
        (with_table(1, levels=("x", "x")), "b: expected distinct edges or levels"),
        (with_table(0, missing=0.1), "expected multiples of 2^-32, given 0.1"),
        (with_table(0, points=(0.0, 0.0, 1e-300)), "expected multiples of 2^-32, given 1e-300"),
        (with_table(1, unseen=float("nan")), "expected multiples of 2^-32, given nan"),
        (with_table(1, unseen=float("-inf")), "expected multiples of 2^-32, given -inf"),
        (msgspec.structs.replace(CARD, base=0.3), "expected multiples of 2^-32, given 0.3"),
        (
            msgspec.structs.replace(CARD, base=-498.0),
            "margin: expected at most 500, given tables with up to 502",
        ),
        (with_table(0, missing=2.0**60), "margin: expected at most 500"),
        (with_table(0, edges=(0.0, float("inf"))), "a: expected finite edges"),
    ],
)
def test_an_invalid_scorecard_is_refused(card: Scorecard, reason: str) -> None:
    with pytest.raises(ScorecardError) as caught:
        card.check(DEFINITION)
    assert reason in str(caught.value)
