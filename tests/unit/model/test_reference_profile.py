"""The reference profile: its figures, and the synthetic loans drawn from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import open_book, read_loans
from peerloan.loan import (
    Checks,
    Definition,
    Field,
    Label,
    Loans,
    Value,
    default_definition,
)
from peerloan.model import ReferenceProfile
from peerloan.model.reference_profile import LevelProfile, NumberProfile

LABEL = Label("y", 1, 0)
DEFINITION = Definition(
    "m",
    LABEL,
    (
        Field("amount", "number", "Amount", above=0, max=1000),
        Field("share", "number", "Share", min=-1, max=1, percent=True, missing=True),
        Field("count", "whole", "Count", min=-3, max=9, missing=True),
        Field("channel", "category", "Channel", levels=("web",), missing=True),
        Field("rank", "ordered", "Rank", levels=("low", "mid", "high")),
    ),
)
_amounts = st.floats(0, 1000, exclude_min=True) | st.sampled_from(
    [5e-324, 1000.0, math.nextafter(1000, 0), 999.99, 1e-300]
)
_shares = st.floats(-1, 1) | st.sampled_from([-1.0, 1.0, 0.0, -0.0, 5e-324, -1e-310])
_rows = st.tuples(
    _amounts,
    st.none() | _shares,
    st.none() | st.integers(-3, 9).map(float),
    st.none() | st.sampled_from(["web", "shop", "other 🏰", " x "]),
    st.sampled_from(["low", "mid", "high"]),
)


def profile_of(loans: Loans) -> ReferenceProfile:
    late = np.zeros(loans.size)
    late[: loans.size // 2] = 1
    return ReferenceProfile.of(loans, late, np.linspace(0.01, 0.5, loans.size))


def assert_valid(definition: Definition, loans: Loans, size: int) -> None:
    assert loans.size == size
    checks = Checks(definition)
    for row in loans.rows():
        # As in a bundle: written as JSON, read, and checked like a request.
        record: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode(dict(zip(definition.names, row, strict=True)))
        )
        checked = checks.loan(record)
        assert checked.problems == []
        assert checked.values == row


def test_the_figures_of_a_small_table() -> None:
    rows: list[tuple[Value, ...]] = [
        (float(i + 1), None if i < 5 else 0.5, 1.0, "web" if i < 15 else "shop", "mid")
        for i in range(20)
    ]
    profile = profile_of(Loans.of(DEFINITION, rows))
    assert profile.loans == 20
    assert profile.late == 0.5
    amount, share, _, channel, rank = profile.columns
    assert isinstance(amount, NumberProfile)
    assert len(amount.quantiles) == 21
    assert amount.quantiles[:1] + amount.quantiles[-1:] == (1.0, 20.0)
    # 15 % of 20 may be 3.0000000000000004.
    assert np.abs(np.array(amount.quantiles) - [1, *range(1, 21)]).max() <= 1
    assert amount.mean == 10.5
    assert amount.missing == 0.0
    assert isinstance(share, NumberProfile)
    assert (share.missing, share.mean) == (0.25, 0.5)
    assert channel == LevelProfile("channel", ("web", "shop"), (0.75, 0.25), 0.0)
    assert rank == LevelProfile("rank", ("mid",), (1.0,), 0.0)
    assert profile.usual("amount") == 10.0
    assert profile.usual("channel") == "web"
    assert profile.probability.quantiles[0] == 0.01
    assert profile.probability.quantiles[-1] == 0.5


def test_a_column_without_values_has_no_usual_value() -> None:
    rows: list[tuple[Value, ...]] = [(1.0, None, None, None, "low")] * 5
    profile = profile_of(Loans.of(DEFINITION, rows))
    assert profile.usual("share") is None
    assert profile.usual("channel") is None
    assert profile.columns[1] == NumberProfile("share", (), None, 1.0)
    assert profile.columns[3] == LevelProfile("channel", (), (), 1.0)
    drawn = profile.draw(DEFINITION, 10, seed=1)
    assert_valid(DEFINITION, drawn, 10)
    assert {row[1:] for row in drawn.rows()} == {(None, None, None, "low")}


@given(st.lists(_rows, min_size=1, max_size=40), st.integers(0, 2**32))
def test_drawn_loans_are_valid_for_any_table(rows: list[tuple[Value, ...]], seed: int) -> None:
    profile = profile_of(Loans.of(DEFINITION, rows))
    again = msgspec.json.decode(msgspec.json.encode(profile), type=ReferenceProfile)
    assert again == profile
    drawn = again.draw(DEFINITION, 30, seed)
    assert_valid(DEFINITION, drawn, 30)
    for name, lowest, highest in (
        (field.name, *_range(rows, i)) for i, field in enumerate(DEFINITION.fields[:3])
    ):
        values = drawn.numbers(name)
        values = values[~np.isnan(values)]
        if len(values):
            assert lowest <= values.min()
            assert values.max() <= highest
    assert {row[3] for row in drawn.rows()} <= {row[3] for row in rows}
    assert {row[4] for row in drawn.rows()} <= {row[4] for row in rows}


def _range(rows: list[tuple[Value, ...]], i: int) -> tuple[float, float]:
    given_values = [float(value) for row in rows if (value := row[i]) is not None]
    return (min(given_values), max(given_values)) if given_values else (0.0, 0.0)


NUMBER = Definition("m", LABEL, (Field("a", "number", "A", missing=True),))
WHOLE = Definition("m", LABEL, (Field("a", "whole", "A", missing=True),))


@given(st.lists(st.floats(-1e307, 1e307), min_size=1, max_size=50), st.integers(0, 99))
def test_numbers_of_any_size_can_be_drawn(values: list[float], seed: int) -> None:
    for definition, given_values in ((NUMBER, values), (WHOLE, [float(round(v)) for v in values])):
        loans = Loans.of(definition, [(value,) for value in given_values])
        drawn = profile_of(loans).draw(definition, 20, seed)
        assert_valid(definition, drawn, 20)
        assert not np.isnan(drawn.numbers("a")).any()


@pytest.mark.parametrize(
    "values",
    [
        [1.7976931348623157e308] * 30,
        [1.7976931348623157e308, 1.0] * 30,
        [-1.7976931348623157e308] * 30,
        [1.7976931348623157e308, -1.7976931348623157e308] * 30,
    ],
)
def test_the_largest_numbers_can_be_drawn(values: list[float]) -> None:
    loans = Loans.of(NUMBER, [(value,) for value in values])
    drawn = profile_of(loans).draw(NUMBER, 50, seed=2)
    assert_valid(NUMBER, drawn, 50)
    assert not np.isnan(drawn.numbers("a")).any()


def test_draws_depend_only_on_the_seed() -> None:
    rows: list[tuple[Value, ...]] = [(float(i + 1), None, 1.0, "web", "mid") for i in range(50)]
    profile = profile_of(Loans.of(DEFINITION, rows))
    first = profile.draw(DEFINITION, 20, seed=1).rows()
    assert profile.draw(DEFINITION, 20, seed=1).rows() == first
    assert profile.draw(DEFINITION, 20, seed=2).rows() != first
    assert profile.draw(DEFINITION, 0, seed=1).rows() == []


def test_draws_have_the_shares_of_the_table() -> None:
    rows: list[tuple[Value, ...]] = [
        (float(i % 100 + 1), None if i % 4 == 0 else 0.5, 1.0, "web" if i % 10 else None, "mid")
        for i in range(1000)
    ]
    drawn = profile_of(Loans.of(DEFINITION, rows)).draw(DEFINITION, 20_000, seed=3)
    assert np.isnan(drawn.numbers("share")).mean() == pytest.approx(0.25, abs=0.02)
    assert (drawn.texts("channel").codes == -1).mean() == pytest.approx(0.1, abs=0.02)
    assert np.median(drawn.numbers("amount")) == pytest.approx(50, abs=2)


def test_no_drawn_loan_is_a_row_of_the_table() -> None:
    """Columns are drawn independently, so pairs of values of the table are not preserved."""
    rows: list[tuple[Value, ...]] = [
        (float(i + 1), (i - 100) / 100, float(i % 13 - 3), ("web", "shop")[i % 2], "mid")
        for i in range(200)
    ]
    drawn = profile_of(Loans.of(DEFINITION, rows)).draw(DEFINITION, 200, seed=4)
    assert not set(drawn.rows()) & set(rows)


def test_a_profile_of_other_fields_is_refused() -> None:
    rows: list[tuple[Value, ...]] = [(1.0, None, 1.0, "web", "mid")] * 5
    profile = profile_of(Loans.of(DEFINITION, rows))
    profile.check(DEFINITION)
    with pytest.raises(ValueError, match="given amount, share, count, channel, rank"):
        profile.check(NUMBER)


def test_draws_from_the_sample_are_valid_loans(sample_book: Path) -> None:
    definition = default_definition()
    part = next(iter(open_book(sample_book).parts()))
    loans = read_loans(definition, part).loans
    drawn = profile_of(loans).draw(definition, 500, seed=2)
    assert_valid(definition, drawn, 500)
    assert not set(drawn.rows()) & set(loans.rows())
