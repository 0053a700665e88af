"""Comparing two versions on the same loans: figures, paired bootstrap and verdict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from peerloan.model import probabilities
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.bootstrap import (
    ChallengerVerdict,
    FigureComparison,
    ModelScores,
    Verdict,
    judge_challenger,
    resample,
)
from peerloan.stats.estimate import Estimate


def scores(margins: Numbers) -> ModelScores:
    return ModelScores(margins, probabilities(margins))


def compare(
    champion: Numbers,
    challenger: Numbers,
    late: Numbers,
    groups: Codes | None = None,
    samples: int = 1_000,
    seed: int = 0,
) -> ChallengerVerdict:
    return judge_challenger(scores(champion), scores(challenger), late, groups, samples, seed)


def draw(n: int, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Margins of two versions, with ties, and outcomes of which the first are the true log-odds."""
    random = np.random.default_rng(seed)
    first = np.round(random.normal(-1.5, 1, n), 1)
    second = np.round(first + random.normal(0.2, 0.5, n), 1)
    late = (random.random(n) < probabilities(first)).astype(np.float64)
    return first, second, late


def test_figures_of_four_loans_computed_by_hand() -> None:
    champion = np.log(np.array([1.0, 1.0, 3.0, 1 / 3]))  # 1/2, 1/2, 3/4, 1/4
    challenger = np.log(np.array([3.0, 1.0, 1.0, 1 / 3]))  # 3/4, 1/2, 1/2, 1/4
    late = np.array([1.0, 0.0, 0.0, 0.0])
    comparison = compare(champion, challenger, late)
    assert (comparison.loans, comparison.late, comparison.samples) == (4, 1, 1_000)
    # The champion ranks the late loan above one of the three others and equal to one; the
    # challenger ranks it above all three.
    assert comparison.auc[:2] == (0.5, 1.0)
    assert comparison.auc.difference.value == 0.5
    assert comparison.brier.champion == pytest.approx((4 + 4 + 9 + 1) / 64)
    assert comparison.brier.challenger == pytest.approx((1 + 4 + 4 + 1) / 64)
    assert comparison.log_loss.champion == pytest.approx(
        -(2 * np.log(1 / 2) + np.log(1 / 4) + np.log(3 / 4)) / 4
    )
    assert comparison.log_loss.challenger == pytest.approx(
        -(2 * np.log(3 / 4) + 2 * np.log(1 / 2)) / 4
    )


def test_the_bootstrap_agrees_with_a_loop_over_the_same_draws() -> None:
    pair, samples = draw(300, 3), 60
    late = pair[2]
    random = np.random.default_rng(5)
    outcomes = np.flatnonzero(late), np.flatnonzero(late == 0)
    draws = [
        [rows[random.integers(0, len(rows), len(rows))] for rows in outcomes]
        for _ in range(samples)
    ]
    late_counts = random.binomial(300, len(outcomes[0]) / 300, samples)
    aucs, differences = [], []
    for drawn, n_late in zip(draws, late_counts, strict=True):
        rows = np.concatenate(drawn)
        # The weights give the sample the drawn late rate.
        weights = np.concatenate(
            [
                np.full(len(outcomes[0]), n_late / len(outcomes[0])),
                np.full(len(outcomes[1]), (300 - n_late) / len(outcomes[1])),
            ]
        )
        figures = [
            (
                roc_auc_score(late[rows], margins[rows]),
                brier_score_loss(late[rows], probabilities(margins[rows]), sample_weight=weights),
                log_loss(late[rows], 1 / (1 + np.exp(-margins[rows])), sample_weight=weights),
            )
            for margins in pair[:2]
        ]
        aucs.append([auc for auc, _, _ in figures])
        differences.append(np.subtract(figures[1], figures[0]))
    ends = np.quantile(differences, [0.025, 0.975], axis=0).T
    comparison = compare(*pair, samples=samples, seed=5)
    for figure, (low, high) in zip(
        (comparison.auc, comparison.brier, comparison.log_loss), ends, strict=True
    ):
        assert figure.difference.low == pytest.approx(low)
        assert figure.difference.high == pytest.approx(high)
    assert comparison.auc.champion == pytest.approx(roc_auc_score(late, pair[0]))
    assert comparison == compare(*pair, samples=samples, seed=5), "the same seed"
    both = resample(scores(pair[0]), scores(pair[1]), late, None, samples, 5)
    assert both.auc == pytest.approx(np.array(aucs), abs=1e-12)
    assert comparison.auc_above == np.mean(both.auc[:, 1] > both.auc[:, 0])


def test_the_spread_of_auc_differences_is_that_of_delong() -> None:
    random = np.random.default_rng(4)
    late = (np.arange(600) < 150).astype(float)
    first = random.normal(size=600) + late
    second = first + 0.7 * random.normal(size=600)
    drawn_aucs = resample(scores(first), scores(second), late, None, 2_000, 0).auc

    def placements(margins: Numbers) -> tuple[Numbers, Numbers]:
        above = margins[late == 1][:, None] > margins[late == 0][None, :]
        return above.mean(axis=1), above.mean(axis=0)

    # DeLong, DeLong and Clarke-Pearson (1988): the variance of a paired difference.
    (a_bad, a_good), (b_bad, b_good) = placements(first), placements(second)
    variance = np.var(b_bad - a_bad, ddof=1) / 150 + np.var(b_good - a_good, ddof=1) / 450
    assert np.subtract(*drawn_aucs.T).std() == pytest.approx(np.sqrt(variance), rel=0.06)


def test_the_spread_of_log_losses_is_the_standard_error_of_their_mean() -> None:
    first, second, late = draw(2_000, 6)
    losses = resample(scores(first), scores(second), late, None, 2_000, 0)
    pairs = [np.logaddexp(0, np.where(late == 1, -m, m)) for m in (first, second)]
    expected = np.std(pairs[1] - pairs[0]) / np.sqrt(2_000)
    assert losses.log_loss.std() == pytest.approx(expected, rel=0.06)


def test_a_mean_probability_that_fits_a_book_by_chance_is_not_better() -> None:
    # At this late rate both constant margins have the same expected log loss. Which of them fits a
    # book better is chance. If every sample had the book's late rate, one would always win.
    champion, challenger = np.log(0.02 / 0.98), np.log(0.03 / 0.97)
    step = np.log(0.98 / 0.97)
    rate = step / (challenger - champion)
    random, verdicts = np.random.default_rng(0), []
    for _ in range(100):
        late = (random.random(3_000) < rate).astype(np.float64)
        pair = np.full(3_000, champion), np.full(3_000, challenger)
        verdicts.append(compare(*pair, late, samples=200).verdict)
    assert verdicts.count("no difference") >= 90


def test_the_version_without_noise_is_better_and_the_one_with_noise_worse() -> None:
    exact, noisy, late = draw(4_000, 1)
    assert compare(noisy, exact, late).verdict == "better"
    assert compare(exact, noisy, late).verdict == "worse"
    assert compare(exact, exact, late).verdict == "no difference"


def test_a_shift_to_the_right_mean_is_better_and_changes_no_rank() -> None:
    exact, _, late = draw(4_000, 2)
    comparison = compare(exact - 0.8, exact, late)
    assert comparison.auc.difference == (0, 0, 0)
    assert comparison.verdict == "better"


def test_a_tie_that_rounding_breaks_is_no_difference() -> None:
    champion, _, late = draw(4_000, 4)
    late[:2], champion[:2] = (1, 0), 0.0
    challenger = champion.copy()
    challenger[0] += 2.0**-32
    comparison = compare(champion, challenger, late)
    assert comparison.auc.difference.value > 0
    assert comparison.verdict == "no difference"


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
def test_a_better_version_is_worse_in_neither_ranking_nor_probabilities(
    auc: tuple[float, float], loss: tuple[float, float], verdict: Verdict
) -> None:
    of_auc, of_brier, of_loss = (
        FigureComparison(0.5, 0.5, Estimate(0.0, *ends)) for ends in (auc, (0.0, 0.0), loss)
    )
    comparison = ChallengerVerdict(1_000, 100, 1_000, of_auc, of_brier, of_loss, 0.5)
    assert comparison.verdict == verdict


@pytest.mark.parametrize("late", [[0.0, 0.0], [1.0, 1.0], [1.0]])
def test_late_loans_loans_on_time_and_equal_lengths_are_required(late: list[float]) -> None:
    with pytest.raises(ValueError, match=r"late|compared"):
        compare(np.zeros(2), np.zeros(2), np.array(late))


def test_copies_of_loans_do_not_narrow_an_interval_if_they_are_grouped() -> None:
    first, second, late = draw(400, 9)
    rows = np.repeat(np.arange(400), 20)
    many = first[rows], second[rows], late[rows]
    single = compare(first, second, late)
    ungrouped, grouped = compare(*many), compare(*many, groups=rows)
    for name in ("auc", "brier", "log_loss"):
        widths = [
            (difference := getattr(comparison, name).difference).high - difference.low
            for comparison in (single, ungrouped, grouped)
        ]
        assert widths[1] < 0.4 * widths[0]
        assert widths[2] == pytest.approx(widths[0], rel=0.2)


def test_fewer_than_five_late_loans_give_no_difference() -> None:
    champion = np.linspace(-4, -1, 200)
    late = np.zeros(200)
    late[:4] = 1
    assert compare(champion, -champion - 5, late).verdict == "no difference"
    late[4] = 1
    assert compare(champion, -champion - 5, late).verdict == "better"
