"""Discrimination, compared with cases computed by hand, a published example and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from peerloan.stats.discrimination import (
    ScoreCounts,
    auc,
    auc_interval,
    auc_of_counts,
    average_precision,
    ks_gaps,
    level_auc,
)


def test_auc_counts_a_tie_half_and_leaves_missing_values_out() -> None:
    values = np.array([1, 2, 2, 3, np.nan])
    assert auc(values, np.array([0, 0, 1, 1, 1])) == 3.5 / 4
    assert auc(values, np.zeros(5, dtype=np.int64)) is None


def test_meaningless_levels_have_an_auc_of_one_half() -> None:
    rng = np.random.default_rng(1)
    late = (rng.random(2_000) < 0.1).astype(np.int64)
    area = level_auc(rng.integers(0, 200, 2_000), late)
    assert area == pytest.approx(0.5, abs=0.06)
    assert level_auc(late.copy(), late) == 1


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_figures_of_counts_agree_with_scikit_learn_on_single_loans(decimals: int) -> None:
    random = np.random.default_rng(decimals)
    late = (random.random(2_000) < 0.1).astype(np.float64)
    scores = np.round(random.normal(size=2_000) + late, decimals)
    counts = ScoreCounts.of(scores, late)
    assert float(auc_of_counts(*counts)) == pytest.approx(roc_auc_score(late, scores), abs=1e-12)
    assert auc(scores, late) == float(auc_of_counts(*counts))
    by_library = average_precision_score(late, scores)
    assert average_precision(*counts) == pytest.approx(by_library, abs=1e-12)
    false_positive, true_positive, _ = roc_curve(late, scores)
    assert ks_gaps(*counts).max() == pytest.approx(np.max(true_positive - false_positive))


def test_auc_of_several_sets_of_counts_at_once() -> None:
    late = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    areas = auc_of_counts(late, 2 - late)
    # First set: the first late loan ties with one loan on time and ranks above two, the second ties
    # with one and ranks above three. Second set: the late loan ties with one loan on time.
    assert areas[:2].tolist() == [(2.5 + 3.5) / (2 * 4), 0.5 / 5]
    assert np.isnan(areas[2])


# Hanley and McNeil (1982), Radiology 143, table I: ratings of 58 normal and 51 abnormal images.
NORMAL, ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)


def test_auc_and_standard_error_of_the_published_example() -> None:
    ratings = np.concatenate([np.repeat(np.arange(5.0), n) for n in (NORMAL, ABNORMAL)])
    late = np.repeat([0.0, 1.0], [58, 51])
    area = auc(ratings, late)
    assert area is not None
    assert area == pytest.approx(0.893, abs=5e-4)
    low, high = auc_interval(late, area)
    assert (high - area) / 1.96 == pytest.approx(0.032, abs=1e-3)
    assert area - low == pytest.approx(high - area)


def test_the_interval_of_four_loans_computed_by_hand() -> None:
    # AUC 3/4 of two late loans and two on time: q1 = 0.6, q2 = 9/14, and the variance is
    # (3/16 + 0.0375 + 9/14 − 9/16) / 4.
    late = np.array([0.0, 0, 1, 1])
    deviation = math.sqrt((3 / 16 + (0.6 - 9 / 16) + (9 / 14 - 9 / 16)) / 4)
    low, high = auc_interval(late, 0.75)
    assert low == pytest.approx(0.75 - 1.96 * deviation)
    assert high == 1.0


def test_an_auc_interval_stays_between_0_and_1_and_narrows_with_more_loans() -> None:
    few, many = np.array([0.0, 1] * 10), np.array([0.0, 1] * 1_000)
    low, high = auc_interval(few, 1.0)
    assert high == 1.0
    assert low == pytest.approx(0.79, abs=0.02)
    assert auc_interval(few, 0.0) == pytest.approx((0.0, 1 - low))
    assert 0 < auc_interval(few, 0.02)[0] < 0.005
    assert auc_interval(few, 0.06)[0] == 0.0
    widths = [high - low for low, high in (auc_interval(few, 0.7), auc_interval(many, 0.7))]
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.05)
