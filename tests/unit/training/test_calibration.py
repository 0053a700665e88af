"""Calibration of margins, on all loans and out of fold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.model import PlattCalibration
from peerloan.model.encoding import Encoding
from peerloan.registry import OnnxParts
from peerloan.stats.arrays import Numbers
from peerloan.training.calibration import cross_fitted, fit_calibration


def logistic(margins: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-margins)))


def log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


def outcomes(margins: Numbers, seed: int = 1) -> Numbers:
    """Draw outcomes with these margins as their true log-odds."""
    draws = np.random.default_rng(seed).random(len(margins))
    return (draws < logistic(margins)).astype(np.float64)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.5), (2.5, 0.7)])
def test_the_true_slope_and_intercept_are_fitted(slope: float, intercept: float) -> None:
    margins = np.random.default_rng(5).normal(-1, 1, 200_000)
    calibration = fit_calibration(margins, outcomes(slope * margins + intercept))
    assert calibration.slope == pytest.approx(slope, rel=0.03)
    assert calibration.intercept == pytest.approx(intercept, abs=0.04)
    assert calibration.apply(np.array([2.0])) == pytest.approx(
        2 * calibration.slope + calibration.intercept
    )


def test_two_margins_get_their_late_rates() -> None:
    # There are two groups and two unknowns, so both rates fit exactly. Platt's outcomes are 11/12
    # and 1/32,
    # so of 20 loans with 2 late, 2 · 11/12 + 18 · 1/32 = 2.396 count as late.
    margins = np.repeat([-3.0, 5.0], 20)
    late = np.concatenate([np.ones(2), np.zeros(18), np.ones(8), np.zeros(12)])
    low, high = (2 * 11 / 12 + 18 / 32) / 20, (8 * 11 / 12 + 12 / 32) / 20
    calibration = fit_calibration(margins, late)
    assert calibration.apply(np.array([-3.0, 5.0])) == pytest.approx(
        [log_odds(low), log_odds(high)]
    )


def test_the_result_does_not_depend_on_the_scale_of_the_margins() -> None:
    margins = np.random.default_rng(5).normal(0, 1, 1_000)
    late = outcomes(margins)
    calibrated = fit_calibration(margins, late).apply(margins)
    for factor, shift in ((1e-4, 0.0), (1e3, 500.0), (1.0, -40.0)):
        other = margins * factor + shift
        assert fit_calibration(other, late).apply(other) == pytest.approx(calibrated, abs=1e-5)


def test_the_calibrated_mean_is_the_late_rate() -> None:
    margins = np.random.default_rng(5).normal(3, 2, 5_000)
    late = outcomes(0.5 * margins - 5)
    calibrated = logistic(fit_calibration(margins, late).apply(margins))
    assert calibrated.mean() == pytest.approx(late.mean(), rel=1e-3)


def test_equal_margins_get_the_late_rate() -> None:
    late = np.array([1.0, 0, 0, 0] * 25)
    calibration = fit_calibration(np.full(100, 0.3), late)
    assert calibration.slope > 0
    assert logistic(calibration.apply(np.array([0.3])))[0] == pytest.approx(0.25)


def test_a_wrong_ranking_is_not_reversed() -> None:
    margins = np.random.default_rng(5).normal(0, 1, 2_000)
    late = outcomes(-2 * margins)
    calibration = fit_calibration(margins, late)
    assert 0 < calibration.slope < 1e-5
    assert logistic(calibration.apply(margins)) == pytest.approx(late.mean(), rel=1e-4)


def test_margins_that_separate_the_outcomes_perfectly_have_a_finite_slope() -> None:
    margins = np.arange(40.0)
    late = (margins > 25).astype(np.float64)
    calibration = fit_calibration(margins, late)
    assert 0.05 < calibration.slope < 5
    assert (np.sign(calibration.apply(margins)) == np.sign(late - 0.5)).mean() > 0.9


def test_a_calibration_is_stored_with_an_onnx_estimator() -> None:
    margins = np.random.default_rng(5).normal(0, 1, 1_000)
    calibration = fit_calibration(margins, outcomes(margins))
    assert isinstance(calibration, PlattCalibration)
    assert OnnxParts(b"", Encoding(()), calibration).calibration == calibration


# Out of fold


def test_a_loan_is_calibrated_without_its_own_fold() -> None:
    random = np.random.default_rng(5)
    margins = random.normal(0, 1, 600)
    late = outcomes(margins)
    fold = random.integers(0, 3, 600)
    before = cross_fitted(margins, late, fold)
    for number in range(3):
        in_fold = fold == number
        expected = fit_calibration(margins[~in_fold], late[~in_fold]).apply(margins[in_fold])
        assert (before[in_fold] == expected).all()
        reversed_late = np.where(in_fold, 1 - late, late)
        after = cross_fitted(margins, reversed_late, fold)
        assert (after[in_fold] == before[in_fold]).all()
        assert (after[~in_fold] != before[~in_fold]).all()
