"""Values that are implausible, or only plausible in another unit."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.loan import Checks, Definition, Field, LoanWarning, default_definition
from peerloan.loan.units import UnitQuestion, question_unit
from peerloan.sample_data import SCENARIOS, draw

INCOME = Field("i", "number", "Income", unit="dollars", seen=(4_000.0, 1_200_000.0))
SHARE = Field("s", "number", "Share", percent=True, seen=(0.0, 1.244))
COUNT = Field("c", "whole", "Count", seen=(0, 23))
DEBT = Field("d", "number", "Debt", seen=(-20_000.0, -500.0))


@pytest.mark.parametrize(
    ("field", "value", "text", "suggestion"),
    [
        (SHARE, 40.0, "40 is read as 4,000 %. Did you mean 0.40?", 0.4),
        (SHARE, 13.06, "13.06 is read as 1,306 %. Did you mean 0.1306?", 0.1306),
        (SHARE, 3.0, "3 is read as 300 %. Did you mean 0.03?", 0.03),
        (
            INCOME,
            65.0,
            "65 dollars is far below the range seen in training, 4,000 dollars to 1,200,000 "
            "dollars. Did you mean 65,000?",
            65_000.0,
        ),
        (
            INCOME,
            4.5e8,
            "450,000,000 dollars is far above the range seen in training, 4,000 dollars to "
            "1,200,000 dollars. Did you mean 450,000?",
            450_000.0,
        ),
        (COUNT, 300.0, "300 is far above the range seen in training, 0 to 23. Did you mean 3?", 3),
        (
            DEBT,
            -9.0,
            "-9 is far above the range seen in training, -20,000 to -500. Did you mean -9,000?",
            -9_000.0,
        ),
    ],
)
def test_a_value_that_only_another_unit_explains_gets_a_suggestion(
    field: Field, value: float, text: str, suggestion: float
) -> None:
    assert question_unit(field, value) == UnitQuestion(text, suggestion)


@pytest.mark.parametrize(
    ("field", "value", "side"),
    [
        (SHARE, 500.0, "above"),  # 5 is not in the range either
        (SHARE, 1e300, "above"),
        (INCOME, 0.01, "below"),
        (INCOME, 1e13, "above"),
        (COUNT, 301.0, "above"),  # 3.01 is no count
        (DEBT, -1e12, "below"),
        (DEBT, 1e12, "above"),
    ],
)
def test_a_far_value_that_no_unit_explains_is_questioned_without_a_suggestion(
    field: Field, value: float, side: str
) -> None:
    question = question_unit(field, value)
    assert question is not None
    assert question.suggestion is None
    assert f"is far {side} the range seen in training" in question.text
    assert question.text.endswith(". Is it in another unit?")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (SHARE, 1.25),
        (SHARE, 2.4),  # less than twice the range
        (SHARE, 5e-324),
        (INCOME, 400.0),  # not more than ten times below the range
        (INCOME, 12_000_000.0),
        (COUNT, 230.0),
        (COUNT, -1.0),
        (DEBT, 0.0),
        (msgspec.structs.replace(COUNT, seen=(0, 0)), 3.0),  # one value has no scale
        (msgspec.structs.replace(COUNT, seen=None), 1e300),
    ],
)
def test_a_value_near_the_range_is_not_questioned(field: Field, value: float) -> None:
    assert question_unit(field, value) is None


_ends = st.floats(-1e12, 1e12)
_fields = st.builds(
    lambda low, high, percent, kind: Field(
        "f", kind, "F", percent=percent, seen=tuple(sorted((low, high)))
    ),
    *(_ends, _ends, st.booleans(), st.sampled_from(["number", "whole"])),
)


@given(_fields, st.floats(allow_nan=False, allow_infinity=False))
def test_only_values_outside_are_questioned_and_suggestions_are_plausible(
    field: Field, value: float
) -> None:
    assert field.seen_range is not None
    low, high = field.seen_range
    question = question_unit(field, value)
    if low <= value <= high:
        assert question is None
    if question is not None and question.suggestion is not None:
        assert low <= question.suggestion <= high
        factors = (100, 1_000)
        assert any(
            question.suggestion == pytest.approx(each, rel=1e-12)
            for each in (*(value * by for by in factors), *(value / by for by in factors))
        )
        assert question_unit(field, question.suggestion) is None


@given(st.integers(4_000, 1_200_000), st.sampled_from([100, 1_000]))
def test_an_income_in_another_unit_is_questioned_if_it_is_implausible(
    income: int, factor: int
) -> None:
    for value in (income * factor, income / factor):
        is_far = value > 12_000_000 or value < 400
        assert (question_unit(INCOME, value) is not None) == is_far


def warnings_of(**changes: Any) -> list[LoanWarning]:
    """The warnings about a loan by the default definition."""
    defaults = {field.name: field.default for field in default_definition().fields}
    return Checks(default_definition()).loan(defaults | changes).warnings


def test_a_suspected_unit_replaces_the_warning_about_the_range() -> None:
    (warning,) = warnings_of(revol_util=40)
    assert warning.code == "unit-suspected"
    assert (
        str(warning) == "revol_util: 4,000 % is outside the range seen in training, 0 % to 124.4 % "
        "(did you mean 0.40?)"
    )
    assert warning.question == "40 is read as 4,000 %. Did you mean 0.40?"
    assert warning.suggestion == 0.4
    assert warning.is_unusual_value


@pytest.mark.parametrize(("value", "is_questioned"), [(500.0, True), (1.5, False)])
def test_other_values_outside_the_range_keep_their_warning(
    value: float, is_questioned: bool
) -> None:
    (warning,) = warnings_of(revol_util=value)
    assert (warning.code, warning.suggestion) == ("out_of_range", None)
    assert (warning.question is not None) == is_questioned
    assert str(warning).endswith("0 % to 124.4 %")


def seen_in(loans: pa.Table) -> Definition:
    """The default definition, with the ranges of these loans."""
    definition = default_definition()
    fields = []
    for field in definition.fields:
        if field.is_number:
            values = [value for value in loans[field.name].to_pylist() if value is not None]
            field = msgspec.structs.replace(field, seen=(min(values), max(values)))
        fields.append(field)
    return msgspec.structs.replace(definition, fields=tuple(fields))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_ordinary_loan_is_questioned(scenario: str) -> None:
    """Also not where the rates have risen, or other people borrow."""
    checks = Checks(seen_in(draw(20_000)))
    names = checks.definition.names
    outside = 0
    for loan in draw(5_000, seed=7, scenario=scenario).select(names).to_pylist():
        checked = checks.loan(loan)
        outside += any(warning.code == "out_of_range" for warning in checked.warnings)
        assert [each for each in checked.warnings if each.question] == []
    assert outside or scenario != "rate-shock", "this scenario has values that training did not see"


def test_a_loan_of_a_tenth_of_the_smallest_is_small_but_not_absurd() -> None:
    (warning,) = warnings_of(loan_amnt=100)
    assert (warning.code, warning.question) == ("out_of_range", None)
