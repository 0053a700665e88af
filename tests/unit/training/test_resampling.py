"""Resampling: equal weight for both classes, by weights or by synthetic late loans."""

from __future__ import annotations

import numpy as np
import pytest

from peerloan.stats.arrays import Numbers
from peerloan.training.resampling import Resampling, resample, robust_scale


def table(late: int, others: int, columns: int = 4, seed: int = 1) -> tuple[Numbers, Numbers]:
    """Loans in random order, of which the late ones lie apart."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([1.0, 0.0], [late, others]))
    matrix = random.lognormal(0, 1, (late + others, columns)) * 10.0 ** np.arange(columns)
    matrix[labels == 1] += 3 * 10.0 ** np.arange(columns)
    return matrix, labels


def test_without_resampling_every_loan_weighs_one() -> None:
    matrix, late = table(5, 45)
    rows, labels, weights = resample("none", matrix, late, 0)
    assert rows is matrix
    assert labels is late
    assert weights.tolist() == [1.0] * 50


@pytest.mark.parametrize(("late", "others"), [(1, 99), (5, 45), (50, 50), (90, 10)])
def test_class_weights_sum_to_the_same_for_both(late: int, others: int) -> None:
    matrix, given = table(late, others)
    rows, labels, weights = resample("class-weight", matrix, given, 0)
    assert rows is matrix
    assert labels is given
    assert weights[given == 1].sum() == pytest.approx((late + others) / 2)
    assert weights[given == 0].sum() == pytest.approx((late + others) / 2)
    assert len(set(weights[given == 1])) == len(set(weights[given == 0])) == 1


@pytest.mark.parametrize("late", [2, 3, 4, 5, 6, 7, 40])
def test_smote_appends_late_loans_until_there_are_as_many_as_others(late: int) -> None:
    matrix, given = table(late, 60)
    rows, labels, weights = resample("smote", matrix, given, 0)
    assert len(rows) == len(labels) == len(weights) == 120
    # The loans themselves come first and are untouched, to the bit.
    assert (rows[: late + 60] == matrix).all()
    assert (labels[: late + 60] == given).all()
    assert (labels[late + 60 :] == 1).all()
    assert set(weights.tolist()) == {1.0}
    # Between late loans: in every column inside what late ones have.
    made, own = rows[late + 60 :], matrix[given == 1]
    slack = 1e-9 * np.abs(own).max(axis=0)
    assert (made >= own.min(axis=0) - slack).all()
    assert (made <= own.max(axis=0) + slack).all()
    assert len(np.unique(made, axis=0)) > len(made) / 2


def test_a_synthetic_loan_lies_on_the_line_between_two_late_ones() -> None:
    matrix, given = table(2, 30)
    made = resample("smote", matrix, given, 0)[0][32:]
    one, other = matrix[given == 1]
    share = (made - one) / (other - one)
    assert (np.ptp(share, axis=1) < 1e-9).all()
    assert share.min() >= -1e-9
    assert share.max() <= 1 + 1e-9


def test_smote_is_the_same_for_the_same_seed_alone() -> None:
    matrix, given = table(10, 60)
    first, again, other = (resample("smote", matrix, given, seed)[0] for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(("late", "others"), [(0, 20), (1, 20), (20, 20), (30, 5)])
def test_smote_appends_nothing_where_it_cannot_or_need_not(late: int, others: int) -> None:
    matrix, given = table(late, others)
    rows, labels, weights = resample("smote", matrix, given, 0)
    assert (rows == matrix).all()
    assert (labels == given).all()
    assert len(weights) == late + others


@pytest.mark.parametrize("how", ["none", "class-weight", "smote"])
def test_what_is_given_is_not_changed(how: Resampling) -> None:
    matrix, given = table(5, 45)
    before, labels = matrix.copy(), given.copy()
    resample(how, matrix, given, 0)
    assert (matrix == before).all()
    assert (given == labels).all()


def test_neighbours_are_near_whatever_the_unit_of_a_column() -> None:
    # Two groups of late loans, told apart by the small column; the large one is noise.
    random = np.random.default_rng(1)
    group = np.repeat([0.0, 1.0], 8)
    late = np.column_stack([group + random.normal(0, 0.01, 16), random.normal(0, 1, 16)])
    others = np.column_stack([random.random(80), random.normal(0, 1, 80)])
    given = np.repeat([1.0, 0.0], [16, 80])
    made = {}
    for unit in (1.0, 1e6):
        matrix = np.concatenate([late, others]) * [1.0, unit]
        made[unit] = resample("smote", matrix, given, 0)[0][96:] / [1.0, unit]
    assert made[1.0] == pytest.approx(made[1e6], rel=1e-9)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_constant_and_huge_columns_stay_numbers() -> None:
    matrix, given = table(5, 45)
    matrix[:, 0] = 7.0
    matrix[::3, 1] = 1e300
    matrix[1::3, 1] = -1e300
    rows = resample("smote", matrix, given, 0)[0]
    assert np.isfinite(rows).all()
    assert set(rows[:, 0].tolist()) == {7.0}


def test_columns_are_scaled_by_median_and_quartiles() -> None:
    matrix = np.column_stack(
        [np.arange(9.0), np.full(9, 5.0), [0.0] * 8 + [900.0], [1.0, 2, 2, 3, 3, 3, 4, 4, 5]]
    )
    centre, scale = robust_scale(matrix)
    assert centre.tolist() == [4.0, 5.0, 0.0, 3.0]
    # The third column is 0 in most loans: its deviation, not 1, tells how far 900 is.
    assert scale.tolist() == pytest.approx([4.0, 1.0, float(np.std(matrix[:, 2])), 2.0])
