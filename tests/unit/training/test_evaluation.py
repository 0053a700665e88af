"""Performance figures: cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.stats.arrays import Numbers
from peerloan.training.evaluation import FIGURES, performance_figures


def margins_of(probabilities: list[float]) -> Numbers:
    p = np.array(probabilities)
    return np.asarray(np.log(p / (1 - p)))


def test_figures_of_a_few_loans_equal_those_computed_by_hand() -> None:
    late = np.array([0.0, 0, 1, 1, 0])
    figures = performance_figures(
        late, margins_of([0.1, 0.4, 0.35, 0.8, 0.2]), math.log(0.38 / 0.62)
    )
    assert tuple(figures) == FIGURES
    # Of the six pairs of a late and another loan only (0.35, 0.4) is ranked wrong.
    assert figures["auc"] == pytest.approx(5 / 6)
    assert figures["gini"] == pytest.approx(4 / 6)
    # At 0.35 both late loans are flagged, and one of the three others.
    assert figures["ks"] == pytest.approx(2 / 3)
    # The late loans are ranked first and third: 1/2 · 1/1 + 1/2 · 2/3.
    assert figures["average_precision"] == pytest.approx(5 / 6)
    logs = [0.9, 0.6, 0.35, 0.8, 0.8]
    assert figures["log_loss"] == pytest.approx(-sum(map(math.log, logs)) / 5)
    assert figures["brier"] == pytest.approx((0.01 + 0.16 + 0.65**2 + 0.04 + 0.04) / 5)
    assert figures["recall"] == 0.5
    assert figures["flagged"] == pytest.approx(2 / 5)


def test_equal_margins_count_half_and_a_margin_at_the_threshold_is_flagged() -> None:
    figures = performance_figures(np.array([0.0, 1]), np.array([-1.0, -1.0]), -1.0)
    assert (figures["auc"], figures["gini"], figures["ks"]) == (0.5, 0.0, 0.0)
    assert (figures["recall"], figures["flagged"]) == (1.0, 1.0)
    assert figures["average_precision"] == 0.5


def test_an_extreme_wrong_margin_has_a_finite_log_loss() -> None:
    figures = performance_figures(np.array([0.0, 1]), np.array([400.0, -400.0]), 0.0)
    assert figures["log_loss"] == pytest.approx(math.log(1e7), rel=1e-6)
    assert (figures["auc"], figures["gini"], figures["ks"]) == (0.0, -1.0, 0.0)
    assert figures["brier"] == pytest.approx(1.0)
    assert (figures["recall"], figures["flagged"]) == (0.0, 0.5)


def test_a_perfect_ranking_has_the_best_figures() -> None:
    figures = performance_figures(np.array([0.0, 1, 0, 1]), np.array([-30.0, 30, -20, 20]), 0.0)
    for name in ("auc", "gini", "ks", "average_precision", "recall"):
        assert figures[name] == 1.0
    assert figures["brier"] == pytest.approx(0, abs=1e-12)
