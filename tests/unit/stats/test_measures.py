"""Figures of columns: against cases computed by hand and against published properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.stats import measures
from peerloan.stats.intervals import wilson


@pytest.mark.parametrize(
    ("count", "whole", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(
    count: int, whole: int, low: float, high: float
) -> None:
    assert wilson(count, whole) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_exactly_at_0_and_1() -> None:
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1


def test_skewness_is_the_adjusted_one() -> None:
    # Mean 4, m2 = 10, m3 = 36, g1 = 36 / 10^1.5, G1 = g1 · √20 / 3.
    values = np.array([1.0, 2, 3, 4, 10])
    expected = 36 / 10**1.5 * math.sqrt(20) / 3
    assert measures.skewness(values) == pytest.approx(expected)
    assert measures.skewness(-values) == pytest.approx(-expected)
    assert measures.skewness(values * 1e300) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_skewness_of_too_little_is_none(values: list[float]) -> None:
    assert measures.skewness(np.array(values)) is None


def test_information_value_by_hand() -> None:
    # g = (0.9, 0.1), b = (0.25, 0.75): 0.65 · ln 3.6 − 0.65 · ln(0.1 / 0.75)
    expected = 0.65 * math.log(3.6) - 0.65 * math.log(0.1 / 0.75)
    assert measures.information_value([10, 30], [90, 10]) == pytest.approx(expected)


def test_information_value_adds_half_a_loan_to_a_bin_without_either() -> None:
    # First bin 0.5 of 10 late and 50.5 of 100 on time, second as it is.
    expected = (0.505 - 0.05) * math.log(10.1) + (0.5 - 1) * math.log(0.5)
    assert measures.information_value([0, 10], [50, 50]) == pytest.approx(expected)


def test_information_value_of_one_kind_of_loans_is_none() -> None:
    assert measures.information_value([0, 0], [5, 5]) is None


def test_chance_alone_stays_below_its_level_19_times_of_20() -> None:
    rng = np.random.default_rng(0)
    late, on_time, bins = 300, 3_000, 8
    level = measures.information_by_chance(bins, late, on_time)
    share = np.full(bins, 1 / bins)
    found = [
        measures.information_value(rng.multinomial(late, share), rng.multinomial(on_time, share))
        for _ in range(2_000)
    ]
    above = np.mean([value is not None and value > level for value in found])
    assert 0.03 < above < 0.08


def test_rank_correlations_by_hand() -> None:
    nan = np.nan
    columns = np.array(
        [[1, 2, 3, 4.0], [1, 30, 20, 400], [4, 3, 2, 1], [7, 7, 7, 7], [5, nan, 6, 8]]
    )
    found = measures.rank_correlations(columns)
    assert found[0, 1] == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 − 6·Σd² / n(n² − 1)
    assert found[0, 2] == pytest.approx(-1)
    assert found[0, 4] == pytest.approx(np.corrcoef([1, 3, 4], [1, 2, 3])[0, 1])
    assert np.isnan(found[3]).all()
    assert np.allclose(found, found.T, equal_nan=True)


def test_cramers_v_is_1_for_the_same_and_0_for_nothing() -> None:
    first = np.tile([0, 1, 2], 200)
    assert measures.cramers_v(first, first * 5) == pytest.approx(1)
    assert measures.cramers_v(first, np.repeat([0, 1], 300)) == 0
    assert measures.cramers_v(first, np.zeros(600, dtype=np.int64)) is None
    rng = np.random.default_rng(2)
    many = measures.cramers_v(rng.integers(0, 80, 600), rng.integers(0, 5, 600))
    assert many is not None
    assert many < 0.1  # without the correction 0.36
