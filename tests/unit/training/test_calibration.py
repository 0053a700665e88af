"""Calibration: it finds what is wrong with margins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.model import Calibration
from peerloan.model.encoding import Encoding
from peerloan.registry import OnnxParts
from peerloan.stats.arrays import Numbers
from peerloan.training.calibration import cross_fitted, fit_calibration


def logistic(margins: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-margins)))


def log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


def outcomes(margins: Numbers, seed: int = 1) -> Numbers:
    """Outcomes of which the margins are the true log-odds."""
    draws = np.random.default_rng(seed).random(len(margins))
    return (draws < logistic(margins)).astype(np.float64)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.5), (2.5, 0.7)])
def test_a_known_slope_and_intercept_are_found(slope: float, intercept: float) -> None:
    margins = np.random.default_rng(5).normal(-1, 1, 200_000)
    found = fit_calibration(margins, outcomes(slope * margins + intercept))
    assert found.slope == pytest.approx(slope, rel=0.03)
    assert found.intercept == pytest.approx(intercept, abs=0.04)
    assert found.apply(np.array([2.0])) == pytest.approx(2 * found.slope + found.intercept)


def test_two_margins_take_the_late_rates_that_they_have() -> None:
    # Two groups and two unknowns: both rates are met. Platt's outcomes are 11/12 and 1/32 here,
    # so of 20 loans with 2 late, 2 · 11/12 + 18 · 1/32 = 2.396 count as late.
    margins = np.repeat([-3.0, 5.0], 20)
    late = np.concatenate([np.ones(2), np.zeros(18), np.ones(8), np.zeros(12)])
    low, high = (2 * 11 / 12 + 18 / 32) / 20, (8 * 11 / 12 + 12 / 32) / 20
    found = fit_calibration(margins, late)
    assert found.apply(np.array([-3.0, 5.0])) == pytest.approx([log_odds(low), log_odds(high)])


def test_scaling_the_margins_changes_nothing_in_the_result() -> None:
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


def test_margins_that_are_all_equal_take_the_late_rate() -> None:
    late = np.array([1.0, 0, 0, 0] * 25)
    found = fit_calibration(np.full(100, 0.3), late)
    assert found.slope > 0
    assert logistic(found.apply(np.array([0.3])))[0] == pytest.approx(0.25)


def test_margins_that_rank_the_wrong_way_round_are_not_turned() -> None:
    margins = np.random.default_rng(5).normal(0, 1, 2_000)
    late = outcomes(-2 * margins)
    found = fit_calibration(margins, late)
    assert 0 < found.slope < 1e-5
    assert logistic(found.apply(margins)) == pytest.approx(late.mean(), rel=1e-4)


def test_margins_that_part_the_outcomes_without_an_error_keep_a_finite_slope() -> None:
    margins = np.arange(40.0)
    late = (margins > 25).astype(np.float64)
    found = fit_calibration(margins, late)
    assert 0.05 < found.slope < 5
    assert (np.sign(found.apply(margins)) == np.sign(late - 0.5)).mean() > 0.9


def test_a_calibration_goes_into_a_bundle_as_it_is() -> None:
    margins = np.random.default_rng(5).normal(0, 1, 1_000)
    found = fit_calibration(margins, outcomes(margins))
    assert isinstance(found, Calibration)
    assert OnnxParts(b"", Encoding(()), found).calibration == found


# Out of fold


def test_no_loan_is_calibrated_by_its_own_fold() -> None:
    random = np.random.default_rng(5)
    margins = random.normal(0, 1, 600)
    late = outcomes(margins)
    fold = random.integers(0, 3, 600)
    before = cross_fitted(margins, late, fold)
    for number in range(3):
        own = fold == number
        expected = fit_calibration(margins[~own], late[~own]).apply(margins[own])
        assert (before[own] == expected).all()
        turned = np.where(own, 1 - late, late)
        after = cross_fitted(margins, turned, fold)
        assert (after[own] == before[own]).all()
        assert (after[~own] != before[~own]).all()
