"""Resampling: equal weight for both classes, by weights or by synthetic late loans."""

from __future__ import annotations

import numpy as np
import pytest

from peerloan.stats.arrays import Numbers
from peerloan.training.resampling import Resampling, resample, robust_scale


def table(late: int, others: int, columns: int = 4, seed: int = 1) -> tuple[Numbers, Numbers]:
    """Loans in random order; the late ones have higher values."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([1.0, 0.0], [late, others]))
    matrix = random.lognormal(0, 1, (late + others, columns)) * 10.0 ** np.arange(columns)
    matrix[labels == 1] += 3 * 10.0 ** np.arange(columns)
    return matrix, labels


def test_without_resampling_all_weights_are_one() -> None:
    matrix, late = table(5, 45)
    rows, labels, weights = resample("none", matrix, late, 0)
    assert rows is matrix
    assert labels is late
    assert weights.tolist() == [1.0] * 50


@pytest.mark.parametrize(("late", "others"), [(1, 99), (5, 45), (50, 50), (90, 10)])
def test_class_weights_have_the_same_sum_for_both_classes(late: int, others: int) -> None:
    matrix, is_late = table(late, others)
    rows, labels, weights = resample("class-weight", matrix, is_late, 0)
    assert rows is matrix
    assert labels is is_late
    assert weights[is_late == 1].sum() == pytest.approx((late + others) / 2)
    assert weights[is_late == 0].sum() == pytest.approx((late + others) / 2)
    assert len(set(weights[is_late == 1])) == len(set(weights[is_late == 0])) == 1


@pytest.mark.parametrize("late", [2, 3, 4, 5, 6, 7, 40])
def test_smote_appends_late_loans_until_both_classes_have_the_same_size(late: int) -> None:
    matrix, is_late = table(late, 60)
    rows, labels, weights = resample("smote", matrix, is_late, 0)
    assert len(rows) == len(labels) == len(weights) == 120
    # The real loans come first, and are bit-identical.
    assert (rows[: late + 60] == matrix).all()
    assert (labels[: late + 60] == is_late).all()
    assert (labels[late + 60 :] == 1).all()
    assert set(weights.tolist()) == {1.0}
    # Synthetic loans are in the range of the late loans in each column.
    synthetic, real = rows[late + 60 :], matrix[is_late == 1]
    slack = 1e-9 * np.abs(real).max(axis=0)
    assert (synthetic >= real.min(axis=0) - slack).all()
    assert (synthetic <= real.max(axis=0) + slack).all()
    assert len(np.unique(synthetic, axis=0)) > len(synthetic) / 2


def test_a_synthetic_loan_lies_on_the_line_between_two_late_ones() -> None:
    matrix, is_late = table(2, 30)
    synthetic = resample("smote", matrix, is_late, 0)[0][32:]
    one, other = matrix[is_late == 1]
    share = (synthetic - one) / (other - one)
    assert (np.ptp(share, axis=1) < 1e-9).all()
    assert share.min() >= -1e-9
    assert share.max() <= 1 + 1e-9


def test_smote_depends_on_the_seed() -> None:
    matrix, is_late = table(10, 60)
    first, again, other = (resample("smote", matrix, is_late, seed)[0] for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(("late", "others"), [(0, 20), (1, 20), (20, 20), (30, 5)])
def test_smote_appends_nothing_with_one_late_loan_or_enough_of_them(late: int, others: int) -> None:
    matrix, is_late = table(late, others)
    rows, labels, weights = resample("smote", matrix, is_late, 0)
    assert (rows == matrix).all()
    assert (labels == is_late).all()
    assert len(weights) == late + others


@pytest.mark.parametrize("how", ["none", "class-weight", "smote"])
def test_the_input_is_not_changed(how: Resampling) -> None:
    matrix, is_late = table(5, 45)
    before, labels = matrix.copy(), is_late.copy()
    resample(how, matrix, is_late, 0)
    assert (matrix == before).all()
    assert (is_late == labels).all()


def test_neighbours_do_not_depend_on_the_unit_of_a_column() -> None:
    # Two groups of late loans differ in the small column; the large one is noise.
    random = np.random.default_rng(1)
    group = np.repeat([0.0, 1.0], 8)
    late = np.column_stack([group + random.normal(0, 0.01, 16), random.normal(0, 1, 16)])
    others = np.column_stack([random.random(80), random.normal(0, 1, 80)])
    is_late = np.repeat([1.0, 0.0], [16, 80])
    synthetic = {}
    for unit in (1.0, 1e6):
        matrix = np.concatenate([late, others]) * [1.0, unit]
        synthetic[unit] = resample("smote", matrix, is_late, 0)[0][96:] / [1.0, unit]
    assert synthetic[1.0] == pytest.approx(synthetic[1e6], rel=1e-9)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_constant_and_huge_columns_stay_numbers() -> None:
    matrix, is_late = table(5, 45)
    matrix[:, 0] = 7.0
    matrix[::3, 1] = 1e300
    matrix[1::3, 1] = -1e300
    rows = resample("smote", matrix, is_late, 0)[0]
    assert np.isfinite(rows).all()
    assert set(rows[:, 0].tolist()) == {7.0}


def test_columns_are_scaled_by_median_and_quartiles() -> None:
    matrix = np.column_stack(
        [np.arange(9.0), np.full(9, 5.0), [0.0] * 8 + [900.0], [1.0, 2, 2, 3, 3, 3, 4, 4, 5]]
    )
    centre, scale = robust_scale(matrix)
    assert centre.tolist() == [4.0, 5.0, 0.0, 3.0]
    # The third column is 0 in most loans: it is scaled by its standard deviation, not by 1.
    assert scale.tolist() == pytest.approx([4.0, 1.0, float(np.std(matrix[:, 2])), 2.0])
