"""Two versions on the same loans: the figures, the paired bootstrap, and the verdict."""

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


def scored(margins: Numbers) -> ModelScores:
    return ModelScores(margins, probabilities(margins))


def compared(
    champion: Numbers,
    challenger: Numbers,
    late: Numbers,
    groups: Codes | None = None,
    samples: int = 1_000,
    seed: int = 0,
) -> ChallengerVerdict:
    return judge_challenger(scored(champion), scored(challenger), late, groups, samples, seed)


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
    kinds = np.flatnonzero(late), np.flatnonzero(late == 0)
    draws = [
        [kind[random.integers(0, len(kind), len(kind))] for kind in kinds] for _ in range(samples)
    ]
    late_counts = random.binomial(300, len(kinds[0]) / 300, samples)
    aucs, differences = [], []
    for drawn_kinds, n_late in zip(draws, late_counts, strict=True):
        rows = np.concatenate(drawn_kinds)
        # As many late loans and others as were drawn, whichever of their kind these are.
        weights = np.concatenate(
            [
                np.full(len(kinds[0]), n_late / len(kinds[0])),
                np.full(len(kinds[1]), (300 - n_late) / len(kinds[1])),
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
        aucs.append([each[0] for each in figures])
        differences.append(np.subtract(figures[1], figures[0]))
    ends = np.quantile(differences, [0.025, 0.975], axis=0).T
    found = compared(*pair, samples=samples, seed=5)
    for each, (low, high) in zip((found.auc, found.brier, found.log_loss), ends, strict=True):
        assert each.difference.low == pytest.approx(low)
        assert each.difference.high == pytest.approx(high)
    assert found.auc.champion == pytest.approx(roc_auc_score(late, pair[0]))
    assert found == compared(*pair, samples=samples, seed=5), "seeded"
    both = resample(scored(pair[0]), scored(pair[1]), late, None, samples, 5)
    assert both.auc == pytest.approx(np.array(aucs), abs=1e-12)
    assert found.auc_above == np.mean(both.auc[:, 1] > both.auc[:, 0])


def test_the_spread_of_areas_is_that_of_delong() -> None:
    random = np.random.default_rng(4)
    late = (np.arange(600) < 150).astype(float)
    first = random.normal(size=600) + late
    second = first + 0.7 * random.normal(size=600)
    drawn_aucs = resample(scored(first), scored(second), late, None, 2_000, 0).auc

    def placements(margins: Numbers) -> tuple[Numbers, Numbers]:
        above = margins[late == 1][:, None] > margins[late == 0][None, :]
        return above.mean(axis=1), above.mean(axis=0)

    # DeLong, DeLong and Clarke-Pearson (1988): the variance of a paired difference.
    (a_bad, a_good), (b_bad, b_good) = placements(first), placements(second)
    variance = np.var(b_bad - a_bad, ddof=1) / 150 + np.var(b_good - a_good, ddof=1) / 450
    assert np.subtract(*drawn_aucs.T).std() == pytest.approx(np.sqrt(variance), rel=0.06)


def test_the_spread_of_losses_is_that_of_whole_loans() -> None:
    first, second, late = drawn(2_000, 6)
    losses = resample(scored(first), scored(second), late, None, 2_000, 0)
    pairs = [np.logaddexp(0, np.where(late == 1, -m, m)) for m in (first, second)]
    expected = np.std(pairs[1] - pairs[0]) / np.sqrt(2_000)
    assert losses.log_loss.std() == pytest.approx(expected, rel=0.06)


def test_a_level_that_fits_one_book_by_chance_is_not_better() -> None:
    # At this late rate both levels have the same log loss. Which of them fits a book better is
    # chance alone; with the book's own late rate in every sample, one would be sure to be better.
    champion, challenger = np.log(0.02 / 0.98), np.log(0.03 / 0.97)
    step = np.log(0.98 / 0.97)
    rate = step / (challenger - champion)
    random, verdicts = np.random.default_rng(0), []
    for _ in range(100):
        late = (random.random(3_000) < rate).astype(np.float64)
        pair = np.full(3_000, champion), np.full(3_000, challenger)
        verdicts.append(compared(*pair, late, samples=200).verdict)
    assert verdicts.count("no difference") >= 90


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
    of_auc, of_brier, of_loss = (
        FigureComparison(0.5, 0.5, Estimate(0.0, *ends)) for ends in (auc, (0.0, 0.0), loss)
    )
    found = ChallengerVerdict(1_000, 100, 1_000, of_auc, of_brier, of_loss, 0.5)
    assert found.verdict == verdict


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
