"""Two versions on the same loans: the figures, the paired bootstrap, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from peerloan.model import probabilities
from peerloan.stats.arrays import Numbers
from peerloan.stats.estimate import Estimate
from peerloan.worker.retraining.challenger_evaluation import (
    Compared,
    Judgement,
    Verdict,
    compared,
)


def drawn(n: int, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Margins of two versions, with ties, and outcomes by the first's."""
    random = np.random.default_rng(seed)
    first = np.round(random.normal(-1.5, 1, n), 1)
    second = np.round(first + random.normal(0.2, 0.5, n), 1)
    late = (random.random(n) < probabilities(first)).astype(np.float64)
    return first, second, late


def test_four_loans_by_hand() -> None:
    champion = np.log(np.array([1.0, 1.0, 3.0, 1 / 3]))  # 1/2, 1/2, 3/4, 1/4
    challenger = np.log(np.array([3.0, 1.0, 1.0, 1 / 3]))  # 3/4, 1/2, 1/2, 1/4
    late = np.array([1.0, 0.0, 0.0, 0.0])
    found = compared(champion, challenger, late)
    assert (found.loans, found.late, found.samples) == (4, 1, 1_000)
    # Above one of three and level with another; above all three.
    assert found.auc[:2] == (0.5, 1.0)
    assert found.auc.difference.value == 0.5
    assert found.brier.champion == pytest.approx((4 + 4 + 9 + 1) / 64)
    assert found.brier.challenger == pytest.approx((1 + 4 + 4 + 1) / 64)
    assert found.log_loss.champion == pytest.approx(
        -(2 * np.log(1 / 2) + np.log(1 / 4) + np.log(3 / 4)) / 4
    )
    assert found.log_loss.challenger == pytest.approx(-(2 * np.log(3 / 4) + 2 * np.log(1 / 2)) / 4)


def test_it_is_what_a_loop_over_the_same_draws_finds() -> None:
    pair, samples = drawn(300, 3), 60
    late = pair[2]
    random = np.random.default_rng(5)
    differences = []
    for _ in range(samples):
        rows = random.integers(0, len(late), len(late))
        figures = [
            (
                roc_auc_score(late[rows], margins[rows]),
                brier_score_loss(late[rows], probabilities(margins[rows])),
                log_loss(late[rows], 1 / (1 + np.exp(-margins[rows]))),
            )
            for margins in pair[:2]
        ]
        differences.append(np.subtract(figures[1], figures[0]))
    ends = np.quantile(differences, [0.025, 0.975], axis=0).T
    found = compared(*pair, samples=samples, seed=5)
    for each, (low, high) in zip((found.auc, found.brier, found.log_loss), ends, strict=True):
        assert each.difference.low == pytest.approx(low)
        assert each.difference.high == pytest.approx(high)
    assert found.auc.champion == pytest.approx(roc_auc_score(late, pair[0]))
    assert found == compared(*pair, samples=samples, seed=5), "seeded"


def test_a_version_is_better_that_knows_more_and_worse_the_other_way_round() -> None:
    right, noisy, late = drawn(4_000, 1)
    assert compared(noisy, right, late).verdict == "better"
    assert compared(right, noisy, late).verdict == "worse"
    assert compared(right, right, late).verdict == "no difference"


def test_only_its_level_put_right_it_is_better_and_ranks_as_before() -> None:
    right, _, late = drawn(4_000, 2)
    found = compared(right - 0.8, right, late)
    assert found.auc.difference == (0, 0, 0)
    assert found.verdict == "better"
    assert "log loss" in found.sentence()


def test_a_tie_that_rounding_breaks_is_no_difference() -> None:
    champion, _, late = drawn(4_000, 4)
    late[:2], champion[:2] = (1, 0), 0.0
    challenger = champion.copy()
    challenger[0] += 2.0**-32
    found = compared(champion, challenger, late)
    assert found.auc.difference.value > 0
    assert found.verdict == "no difference"


@pytest.mark.parametrize(
    ("auc", "loss", "verdict"),
    [
        ((0.01, 0.02), (-0.01, 0.01), "better"),
        ((-0.01, 0.02), (-0.02, -0.01), "better"),
        ((0.01, 0.02), (0.01, 0.02), "worse"),
        ((-0.02, -0.01), (-0.02, -0.01), "worse"),
        ((-0.01, 0.02), (-0.01, 0.02), "no difference"),
    ],
)
def test_neither_ranking_nor_probabilities_may_be_worse(
    auc: tuple[float, float], loss: tuple[float, float], verdict: Verdict
) -> None:
    figures = [Compared(0.5, 0.5, Estimate(0.0, *ends)) for ends in (auc, (0.0, 0.0), loss)]
    assert Judgement(1_000, 100, 1_000, *figures).verdict == verdict


@pytest.mark.parametrize("late", [[0.0, 0.0], [1.0, 1.0], [1.0]])
def test_there_must_be_late_loans_and_others(late: list[float]) -> None:
    with pytest.raises(ValueError, match=r"late|compared"):
        compared(np.zeros(2), np.zeros(2), np.array(late))


def test_copies_of_a_loan_make_no_interval_narrower() -> None:
    first, second, late = drawn(400, 9)
    rows = np.repeat(np.arange(400), 20)
    many = first[rows], second[rows], late[rows]
    once = compared(first, second, late)
    apart, together = compared(*many), compared(*many, groups=rows)
    for name in ("auc", "brier", "log_loss"):
        widths = [
            (each := getattr(found, name).difference).high - each.low
            for found in (once, apart, together)
        ]
        assert widths[1] < 0.4 * widths[0]
        assert widths[2] == pytest.approx(widths[0], rel=0.2)


def test_nothing_is_said_of_fewer_than_five_late_loans() -> None:
    champion = np.linspace(-4, -1, 200)
    late = np.zeros(200)
    late[:4] = 1
    assert compared(champion, -champion - 5, late).verdict == "no difference"
    late[4] = 1
    assert compared(champion, -champion - 5, late).verdict == "better"
