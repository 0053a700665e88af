"""The trade-off table: the results of thresholds on loans that were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.model import OperatingPoint, Policy
from peerloan.training.trade_off import trade_off


def test_four_loans_computed_by_hand() -> None:
    margins = np.array([0.1, 0.4, 0.3, 0.2])
    late = np.array([0.0, 1, 0, 1])
    assert trade_off(margins, late) == (
        OperatingPoint(0.4, 0.25, 0.5, 1.0),
        OperatingPoint(0.3, 0.50, 0.5, 0.5),
        OperatingPoint(0.2, 0.75, 1.0, 2 / 3),
        OperatingPoint(0.1, 1.00, 1.0, 0.5),
    )


def test_loans_with_equal_margins_are_flagged_together() -> None:
    margins = np.array([2.0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    late = np.array([0.0, 0, 1, 1, 1, 0, 0, 0, 0, 1])
    assert trade_off(margins, late) == (
        OperatingPoint(2.0, 0.1, 0.0, 0.0),
        OperatingPoint(1.0, 0.4, 0.5, 0.5),
        OperatingPoint(0.0, 1.0, 1.0, 0.4),
    )
    # The order of the loans does not matter.
    order = np.random.default_rng(1).permutation(10)
    assert trade_off(margins[order], late[order]) == trade_off(margins, late)


def test_a_single_margin_has_one_row() -> None:
    assert trade_off(np.zeros(50), np.arange(50) % 10 == 0) == (OperatingPoint(0.0, 1.0, 1.0, 0.1),)


def test_a_large_table_has_a_row_for_each_step() -> None:
    random = np.random.default_rng(2)
    margins = random.normal(size=5000)
    late = (random.random(5000) < 1 / (1 + np.exp(3 - margins))).astype(np.float64)
    rows = trade_off(margins, late)
    fine, coarse = [i / 1000 for i in range(1, 50)], [i / 200 for i in range(10, 201)]
    assert [row.flagged for row in rows] == pytest.approx([*fine, *coarse])
    for row in rows:
        flagged = margins >= row.margin
        assert row.flagged == flagged.mean()
        assert row.recall == pytest.approx(late[flagged].sum() / late.sum())
        assert row.precision == pytest.approx(late[flagged].mean())


@pytest.mark.parametrize("loans", [3_999, 111_068])
@pytest.mark.parametrize("capacity", [0.002, 0.01, 0.05, 0.1, 0.125, 0.2, 0.3])
def test_a_capacity_is_used_completely(loans: int, capacity: float) -> None:
    margins = np.random.default_rng(4).permutation(loans) / loans
    rows = trade_off(margins, (np.arange(loans) % 40 == 0).astype(np.float64))
    policy = Policy.by_aim("capacity", capacity, rows)
    assert policy.late_many(margins).sum() == int(loans * capacity + 1e-9)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60),
    st.floats(0.001, 0.999),
)
def test_aims_are_met_on_the_loans_of_the_table(
    loans: list[tuple[int, bool]], share: float
) -> None:
    # Not round in any unit: a rounded threshold must still flag the loans with its margin.
    margins = np.array([number / 7 - 0.123456789123 for number, _ in loans])
    late = np.array([float(is_late) for _, is_late in loans])
    late[0] = 1.0
    rows = trade_off(margins, late)
    assert (rows[-1].flagged, rows[-1].recall) == (1.0, 1.0)
    flagged = Policy.by_aim("recall", share, rows).late_many(margins)
    assert late[flagged].sum() / late.sum() >= share
    if min(row.flagged for row in rows) <= share:
        assert Policy.by_aim("capacity", share, rows).late_many(margins).mean() <= share
    else:
        with pytest.raises(ValueError, match="capacity"):
            Policy.by_aim("capacity", share, rows)
