"""Figures of columns, compared with cases computed by hand and with published properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.stats import measures
from peerloan.stats.intervals import wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(
    count: int, total: int, low: float, high: float
) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_exactly_at_0_and_1() -> None:
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1


def test_skewness_computed_by_hand() -> None:
    # Mean 4, m2 = 10, m3 = 36, g1 = 36 / 10^1.5, G1 = g1 · √20 / 3.
    values = np.array([1.0, 2, 3, 4, 10])
    expected = 36 / 10**1.5 * math.sqrt(20) / 3
    assert measures.skewness(values) == pytest.approx(expected)
    assert measures.skewness(-values) == pytest.approx(-expected)
    assert measures.skewness(values * 1e300) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_skewness_of_too_few_or_equal_values_is_none(values: list[float]) -> None:
    assert measures.skewness(np.array(values)) is None


def test_information_value_computed_by_hand() -> None:
    # g = (0.9, 0.1), b = (0.25, 0.75): 0.65 · ln 3.6 − 0.65 · ln(0.1 / 0.75)
    expected = 0.65 * math.log(3.6) - 0.65 * math.log(0.1 / 0.75)
    assert measures.information_value([10, 30], [90, 10]) == pytest.approx(expected)


def test_information_value_adds_half_a_loan_to_a_bin_with_one_outcome() -> None:
    # First bin: 0.5 of 10 late loans and 50.5 of 100 on time. Second bin: unchanged.
    expected = (0.505 - 0.05) * math.log(10.1) + (0.5 - 1) * math.log(0.5)
    assert measures.information_value([0, 10], [50, 50]) == pytest.approx(expected)


def test_information_value_of_loans_with_one_outcome_is_none() -> None:
    assert measures.information_value([0, 0], [5, 5]) is None


def test_an_unrelated_feature_exceeds_its_95_percent_quantile_in_5_percent_of_samples() -> None:
    rng = np.random.default_rng(0)
    late, on_time, bins = 300, 3_000, 8
    level = measures.information_by_chance(bins, late, on_time)
    share = np.full(bins, 1 / bins)
    values = [
        measures.information_value(rng.multinomial(late, share), rng.multinomial(on_time, share))
        for _ in range(2_000)
    ]
    above = np.mean([value is not None and value > level for value in values])
    assert 0.03 < above < 0.08


def test_rank_correlations_computed_by_hand() -> None:
    nan = np.nan
    columns = np.array(
        [[1, 2, 3, 4.0], [1, 30, 20, 400], [4, 3, 2, 1], [7, 7, 7, 7], [5, nan, 6, 8]]
    )
    correlations = measures.rank_correlations(columns)
    assert correlations[0, 1] == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 − 6·Σd² / n(n² − 1)
    assert correlations[0, 2] == pytest.approx(-1)
    assert correlations[0, 4] == pytest.approx(np.corrcoef([1, 3, 4], [1, 2, 3])[0, 1])
    assert np.isnan(correlations[3]).all()
    assert np.allclose(correlations, correlations.T, equal_nan=True)


def test_cramers_v_is_1_for_a_copy_and_0_for_independent_columns() -> None:
    first = np.tile([0, 1, 2], 200)
    assert measures.cramers_v(first, first * 5) == pytest.approx(1)
    assert measures.cramers_v(first, np.repeat([0, 1], 300)) == 0
    assert measures.cramers_v(first, np.zeros(600, dtype=np.int64)) is None
    rng = np.random.default_rng(2)
    rare_levels = measures.cramers_v(rng.integers(0, 80, 600), rng.integers(0, 5, 600))
    assert rare_levels is not None
    assert rare_levels < 0.1  # without the correction 0.36
