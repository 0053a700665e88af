"""Figures of margins against outcomes: cases computed by hand, and a published example."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.stats.arrays import Numbers
from peerloan.training.evaluation import FIGURES, performance_figures


def margins_of(probabilities: list[float]) -> Numbers:
    p = np.array(probabilities)
    return np.asarray(np.log(p / (1 - p)))


def test_the_figures_of_a_few_loans_by_hand() -> None:
    late = np.array([0.0, 0, 1, 1, 0])
    found = performance_figures(late, margins_of([0.1, 0.4, 0.35, 0.8, 0.2]), math.log(0.38 / 0.62))
    assert tuple(found) == FIGURES
    # Of the six pairs of a late and another loan only (0.35, 0.4) stands the wrong way round.
    assert found["auc"] == pytest.approx(5 / 6)
    assert found["gini"] == pytest.approx(4 / 6)
    # From 0.35 on: both late ones, and one of three others.
    assert found["ks"] == pytest.approx(2 / 3)
    # Late ones are first and third: 1/2 · 1/1 + 1/2 · 2/3.
    assert found["average_precision"] == pytest.approx(5 / 6)
    logs = [0.9, 0.6, 0.35, 0.8, 0.8]
    assert found["log_loss"] == pytest.approx(-sum(map(math.log, logs)) / 5)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.65**2 + 0.04 + 0.04) / 5)
    assert found["recall"] == 0.5
    assert found["flagged"] == pytest.approx(2 / 5)


def test_equal_margins_count_half_and_the_threshold_itself_is_flagged() -> None:
    found = performance_figures(np.array([0.0, 1]), np.array([-1.0, -1.0]), -1.0)
    assert (found["auc"], found["gini"], found["ks"]) == (0.5, 0.0, 0.0)
    assert (found["recall"], found["flagged"]) == (1.0, 1.0)
    assert found["average_precision"] == 0.5


def test_a_certainty_that_is_wrong_has_a_finite_log_loss() -> None:
    found = performance_figures(np.array([0.0, 1]), np.array([400.0, -400.0]), 0.0)
    assert found["log_loss"] == pytest.approx(math.log(1e7), rel=1e-6)
    assert (found["auc"], found["gini"], found["ks"]) == (0.0, -1.0, 0.0)
    assert found["brier"] == pytest.approx(1.0)
    assert (found["recall"], found["flagged"]) == (0.0, 0.5)


def test_margins_without_an_error_have_the_best_figures() -> None:
    found = performance_figures(np.array([0.0, 1, 0, 1]), np.array([-30.0, 30, -20, 20]), 0.0)
    for name in ("auc", "gini", "ks", "average_precision", "recall"):
        assert found[name] == 1.0
    assert found["brier"] == pytest.approx(0, abs=1e-12)
