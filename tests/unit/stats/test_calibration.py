"""Calibration: reliability, and outcomes regressed on margins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import (
    log_losses,
    logistic,
    logistic_regression,
    regress_on_margins,
    reliability,
    squared_errors,
)


def outcomes(margins: Numbers, seed: int = 1) -> Numbers:
    """Outcomes of which the margins are the true log-odds."""
    draws = np.random.default_rng(seed).random(len(margins))
    return (draws < logistic(margins)).astype(np.float64)


def test_reliability_computed_by_hand() -> None:
    # Ten bins of two loans each, with margins -9, -8 … 10; the first and the last six are late.
    margins = np.arange(-9.0, 11.0)
    late = np.array([1.0] + [0] * 13 + [1] * 6)
    figures = reliability(margins, late)
    p = logistic(margins)
    expected = [(p[i] + p[i + 1]) / 2 for i in range(0, 20, 2)]
    observed = [0.5, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert figures.loans == (2,) * 10
    assert figures.expected == pytest.approx(expected)
    assert figures.observed == pytest.approx(observed)
    distances = [abs(a - b) for a, b in zip(expected, observed, strict=True)]
    assert figures.error == pytest.approx(sum(distances) / 10)


def test_the_calibration_error_weights_bins_by_their_loans() -> None:
    # Equal margins share a bin, in any order of the loans.
    margins = np.array([0.0] * 30 + [math.log(3)] * 10)
    late = np.array([1.0] * 6 + [0] * 24 + [1] * 10)
    order = np.random.default_rng(1).permutation(40)
    for figures in (reliability(margins, late), reliability(margins[order], late[order])):
        assert figures.loans == (30, 10)
        assert figures.expected == pytest.approx((0.5, 0.75))
        assert figures.observed == pytest.approx((0.2, 1.0))
        assert figures.error == pytest.approx((30 * 0.3 + 10 * 0.25) / 40)


def test_slope_and_intercept_of_true_and_of_distorted_margins() -> None:
    margins = np.random.default_rng(5).normal(-2, 1, 100_000)
    late = outcomes(margins)
    true = reliability(margins, late)
    assert (true.slope, true.intercept) == pytest.approx((1, 0), abs=0.05)
    assert true.error < 0.005
    assert all(9_999 <= loans <= 10_001 for loans in true.loans)
    distorted = reliability(2 * margins + 1, late)
    assert (distorted.slope, distorted.intercept) == pytest.approx((0.5, -0.5), abs=0.05)
    assert distorted.error > 0.03


def test_a_slope_is_negative_for_reversed_margins_and_0_for_equal_ones() -> None:
    margins = np.random.default_rng(5).normal(0, 1, 2_000)
    assert reliability(margins, outcomes(-margins)).slope == pytest.approx(-1, abs=0.15)
    equal = reliability(np.zeros(10), np.array([1.0, 0] * 5))
    assert (equal.slope, equal.intercept, equal.error) == (0, 0, 0)


# Regression


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1e-4, 3.0), (1e3, 500.0), (0.3, -40.0)])
def test_the_regression_line_agrees_with_scikit_learn(factor: float, shift: float) -> None:
    margins = np.random.default_rng(3).normal(-2, 1, 3_000)
    late = outcomes(0.7 * margins - 0.5)
    by_library = LogisticRegression(C=1e12, solver="newton-cholesky", tol=1e-12)
    by_library.fit(margins.reshape(-1, 1), late)
    slope, intercept = by_library.coef_[0, 0], by_library.intercept_[0]
    # On another scale the line gives the same log-odds.
    line = regress_on_margins(margins * factor + shift, late)
    assert line[0] * factor == pytest.approx(slope, abs=1e-7)
    assert line[1] + line[0] * shift == pytest.approx(intercept, abs=1e-6)


def test_grouped_loans_have_the_same_line_as_single_ones() -> None:
    random = np.random.default_rng(4)
    margins, loans = random.normal(size=50), random.integers(1, 9, 50)
    late = random.binomial(loans, logistic(margins))
    single_margins = np.repeat(margins, loans)
    single_late = np.concatenate(
        [np.r_[np.ones(k), np.zeros(n - k)] for k, n in zip(late, loans, strict=True)]
    )
    line = logistic_regression(margins, late, loans)
    assert line == pytest.approx(regress_on_margins(single_margins, single_late), abs=1e-6)


@pytest.mark.parametrize(
    ("margins", "late", "loans"),
    [
        ([-1.0, 1.0], [0, 5], [5, 5]),
        ([-1.0], [2], [5]),
        ([-1.0, 1.0], [0, 0], [5, 5]),
        ([-1.0, 1.0], [5, 5], [5, 5]),
    ],
)
def test_a_likelihood_without_a_finite_maximum_gives_none(
    margins: list[float], late: list[int], loans: list[int]
) -> None:
    assert logistic_regression(np.array(margins), np.array(late), np.array(loans)) is None


def test_perfectly_separated_outcomes_have_a_finite_slope_that_is_too_steep() -> None:
    margins = np.arange(40.0)
    late = (margins > 25).astype(np.float64)
    slope, intercept = regress_on_margins(margins, late)
    assert 10 < slope < 1_000
    assert ((slope * margins + intercept > 0) == (late == 1)).all()


def test_losses_agree_with_scikit_learn() -> None:
    margins = np.random.default_rng(5).normal(-1, 2, 500)
    late, p = outcomes(margins), logistic(margins)
    assert squared_errors(p, late).mean() == pytest.approx(brier_score_loss(late, p))
    assert log_losses(margins, late).mean() == pytest.approx(log_loss(late, p))
    assert log_losses(np.array([-800.0]), np.array([1.0])).tolist() == [800.0]
