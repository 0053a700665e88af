"""Guessing the late value of a label: by its name, by the column's name, or the rarer one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book.drafting.late_value import late_value


@pytest.mark.parametrize(
    ("column", "values", "late"),
    [
        # A value's own name.
        ("state", {"good": 10, "bad": 90}, "bad"),
        ("state", {"Fully Paid": 10, "Charged Off": 90}, "Charged Off"),
        ("state", {"Completed": 90, "Chargedoff": 10}, "Chargedoff"),
        ("state", {"Current": 90, "Late (31-120 days)": 10}, "Late (31-120 days)"),
        ("state", {"paid": 10, "other": 90}, "other"),
        ("state", {"on time": 10, "x": 90}, "x"),
        ("state", {"Default": 90, "Non-default": 10}, "Default"),
        ("state", {"no default": 10, "default": 90}, "default"),
        ("state", {"late": 90, "not late": 10}, "late"),
        ("state", {"OK": 10, "not OK": 90}, "not OK"),
        ("state", {"Past Due": 90, "Closed": 10}, "Past Due"),
        # A truth value has the column's name.
        ("is_late", {0: 10, 1: 90}, 1),
        ("isLate", {"N": 90, "Y": 10}, "Y"),
        ("paid_back", {1: 98, 0: 2}, 0),
        ("paid_back", {1: 2, 0: 98}, 0),
        ("is_good", {"yes": 10, "no": 90}, "no"),
        ("fully_paid", {True: 98, False: 2}, False),
        ("Fully Paid", {"TRUE": 2, "FALSE": 98}, "FALSE"),
        ("not.fully.paid", {0: 10, 1: 90}, 1),
        ("repaid", {"t": 98, "f": 2}, "f"),
        ("non_default", {"1": 98, "0": 2}, "0"),
        ("default.payment.next.month", {0: 78, 1: 22}, 1),
        ("charged off", {-1: 10, 1: 90}, 1),
        ("CURRENT", {1.0: 10, 0.0: 90}, 0.0),
    ],
)
def test_a_clear_name_decides_even_if_the_value_is_frequent(
    column: str, values: dict[Any, int], late: Any
) -> None:
    chosen = late_value(column, values)
    assert (chosen.value, chosen.by_name) == (late, True)


@pytest.mark.parametrize("column", ["classification", "bad", "paid", "target", "y"])
@pytest.mark.parametrize("values", [(1, 2), (10, 20), ("A", "B"), (1.5, 2.5)])
@pytest.mark.parametrize("rarer", [0, 1])
def test_without_a_clear_name_the_rarer_value_is_late(
    column: str, values: tuple[Any, Any], rarer: int
) -> None:
    chosen = late_value(column, {values[rarer]: 30, values[1 - rarer]: 70})
    assert (chosen.value, chosen.by_name) == (values[rarer], False)


@pytest.mark.parametrize("column", ["outcome", "TARGET", "SeriousDlqin2yrs", "good_bad"])
@pytest.mark.parametrize("values", [(0, 1), (True, False), ("yes", "no"), (-1, 1)])
@pytest.mark.parametrize("rarer", [0, 1])
def test_a_truth_value_of_an_unclear_column_is_not_decided_by_name(
    column: str, values: tuple[Any, Any], rarer: int
) -> None:
    chosen = late_value(column, {values[rarer]: 3, values[1 - rarer]: 97})
    assert (chosen.value, chosen.by_name) == (values[rarer], False)


@given(st.sampled_from(["outcome", "class", "bad", "paid_back"]), st.integers(1, 9), st.booleans())
def test_the_order_of_the_rows_does_not_matter(column: str, count: int, truth: bool) -> None:
    values: tuple[Any, Any] = (0, 1) if truth else (1, 2)
    chosen = {
        late_value(column, dict.fromkeys(order, count)).value for order in (values, values[::-1])
    }
    assert len(chosen) == 1
