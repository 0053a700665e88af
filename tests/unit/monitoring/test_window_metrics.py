"""Figures of drift and performance: by hand, against other libraries, and on drawn windows."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, gamma
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from peerloan.loan import Column, Loans, TextColumn, default_definition
from peerloan.model import Policy, ReferenceProfile, probabilities
from peerloan.model.reference_profile import LevelProfile, NumberProfile
from peerloan.monitoring.alerts import rules
from peerloan.monitoring.alerts.rules import Alert, Rules
from peerloan.monitoring.counting.bins import LevelBins, NumberBins, OutOfReference, bins_of
from peerloan.monitoring.performance import Scores
from peerloan.stats.arrays import Codes
from peerloan.stats.estimate import Estimate
from peerloan.stats.intervals import exact_share, poisson
from peerloan.stats.psi import psi

POLICY = Policy.by_cost()


def test_psi_by_hand() -> None:
    found = psi(np.array([50, 30, 20]), np.array([0.4, 0.4, 0.2]), 1000)
    assert found is not None
    expected = 0.1 * math.log(0.5 / 0.4) - 0.1 * math.log(0.3 / 0.4)
    assert found.value == pytest.approx(expected, abs=1e-15)
    assert found.by_chance == pytest.approx(2 * (1 / 100 + 1 / 1000))


def test_a_bin_that_is_empty_on_one_side_has_half_a_loan_on_both() -> None:
    found = psi(np.array([10, 0, 0]), np.array([0.8, 0.2, 0.0]), 10)
    assert found is not None
    p, q = (1.0, 0.05), (0.8, 0.25)
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert found.value == pytest.approx(expected)
    assert psi(np.array([0, 0]), np.array([0.5, 0.5]), 10) is None


def test_psi_has_the_mean_and_the_error_that_it_says() -> None:
    random = np.random.default_rng(5)
    shares = np.full(10, 0.1)
    for moved, loans in ((shares, 300), (np.array([0.19, *[0.09] * 9]), 2_000)):
        drawn = []
        for _ in range(2_000):
            reference = random.multinomial(5_000, shares) / 5_000
            found = psi(random.multinomial(loans, moved), reference, 5_000)
            assert found is not None
            drawn.append(found)
        true = float(np.sum((moved - shares) * np.log(moved / shares)))
        values = np.array([each.value - each.by_chance for each in drawn])
        assert values.mean() == pytest.approx(true, abs=3e-3)
        assert np.mean([each.error for each in drawn]) == pytest.approx(values.std(), rel=0.2)


def test_many_features_and_small_windows_raise_no_more_alarms() -> None:
    random = np.random.default_rng(6)
    shares = np.full(10, 0.1)
    spoke = 0
    for loans in (20, 60, 200) * 100:
        found = {}
        for i in range(10):
            each = psi(random.multinomial(loans, shares), shares, 50_000)
            assert each is not None
            found[str(i)] = each
        spoke += any(rules.check_drift(Rules(), found, found["0"]))
    assert spoke <= 3, "one of 100 calm windows"


def test_bins_of_a_number_hold_what_the_reference_holds() -> None:
    definition = default_definition()
    random = np.random.default_rng(1)
    n = 5_000
    numbers = np.where(random.random(n) < 0.1, np.nan, random.poisson(0.4, n).astype(np.float64))
    loans = Loans(
        definition,
        {
            field.name: numbers if field.is_number else TextColumn.of(["a", "b", None, "a"] * 1250)
            for field in definition.fields
        },
        n,
    )
    profile = ReferenceProfile.of(loans, np.zeros(n), random.random(n))
    for column, field in zip(profile.columns, definition.fields, strict=True):
        bins, shares = bins_of(column)
        counts = counted(bins, loans.columns[field.name])
        assert counts.sum() == n
        assert shares.sum() == pytest.approx(1)
        assert shares * n == pytest.approx(counts, abs=1e-6), field.name
        assert len(bins.names) == len(counts)
        assert not bins.out_of_reference(loans.columns[field.name]).rows.size
    bins, shares = bins_of(profile.probability)
    assert shares[:-1] == pytest.approx([0.1] * 10, abs=2 / n)


def counted(bins: NumberBins | LevelBins, column: Column) -> Codes:
    """How many loans are in each bin."""
    return np.bincount(bins.places(column), minlength=bins.size)


def named(strange: OutOfReference) -> Counter[str]:
    """How many loans have each value that the reference does not have."""
    return Counter(strange.names[code] for code in strange.codes.tolist())


def test_an_earlier_version_has_the_shares_of_its_quantiles() -> None:
    quantiles = (*[0.0] * 17, 1.0, 1.0, 2.0, 5.0)
    bins, shares = bins_of(NumberProfile("n", quantiles, 0.3, 0.2))
    assert isinstance(bins, NumberBins)
    assert bins.edges.tolist() == [0.0, 1.0]
    assert shares == pytest.approx([0.8 * 0.8, 0.8 * 0.1, 0.8 * 0.1, 0.2])
    assert bins.names == ["≤ 0", "(0, 1]", "> 1", "missing"]
    column = np.array([0.0, -1.0, 1.0, 2.0, np.nan, 9.0])
    assert counted(bins, column).tolist() == [2, 1, 2, 1]
    assert named(bins.out_of_reference(column)) == {"below 0": 1, "above 5": 1}
    bins, shares = bins_of(NumberProfile("n", (), None, 1.0))
    assert (counted(bins, column).tolist(), shares.tolist()) == ([5, 1], [0.0, 1.0])


def test_levels_that_are_new_have_a_bin_and_are_named() -> None:
    bins, shares = bins_of(LevelProfile("l", ("a", "b"), (0.7, 0.2), 0.1))
    assert isinstance(bins, LevelBins)
    column = TextColumn.of(["b", "a", "c", None, "c"])
    assert counted(bins, column).tolist() == [1, 1, 2, 1]
    assert named(bins.out_of_reference(column)) == {"c": 2}
    assert shares.tolist() == [0.7, 0.2, 0.0, 0.1]
    share = {"l": Estimate.of_share(20, 50, rules.SIGNIFICANCE)}
    assert list(rules.check_levels(Rules(), share)) == [
        Alert("new-levels", "watch", "l", 0.4, 0.01)
    ]
    assert not list(
        rules.check_levels(Rules(), {"l": Estimate.of_share(1, 90, rules.SIGNIFICANCE)})
    ), "one of few says little"


MARGINS = st.lists(st.integers(-12, 2), min_size=1, max_size=60).map(
    lambda drawn: np.array(drawn) / 2
)


@given(MARGINS, st.integers(0, 2**32))
def test_realised_figures_are_those_of_single_loans(margins: np.ndarray, seed: int) -> None:
    late = np.random.default_rng(seed).integers(0, 2, len(margins))
    scores = Scores.of(margins, late)
    found = scores.realised(POLICY)
    assert (found.loans, found.late) == (len(margins), late.sum())
    p = probabilities(margins)
    assert found.brier == pytest.approx(brier_score_loss(late, p))
    bands = scores.calibration(POLICY).bands
    assert sum(each.expected for each in bands) == pytest.approx(p.sum())
    assert sum(each.late for each in bands) == late.sum()
    if late.any():
        assert found.recall is not None
        assert found.recall.value == pytest.approx(POLICY.late_many(margins)[late == 1].mean())
    if min(late.sum(), (1 - late).sum()) < 5:
        assert (found.auc, found.gini, found.ks) == (None, None, None)
    else:
        assert found.auc is not None
        assert found.auc.value == pytest.approx(roc_auc_score(late, margins))
        assert 0 <= found.auc.low <= found.auc.value <= found.auc.high <= 1
        false, true, _ = roc_curve(late, margins)
        assert found.ks == pytest.approx(np.max(np.abs(true - false)))


def test_estimates_are_what_outcomes_by_the_probabilities_would_bring() -> None:
    random = np.random.default_rng(2)
    margins = random.normal(-3.6, 0.8, 4_000)
    p = probabilities(margins)
    found = Scores.of(margins).estimated(POLICY)
    assert found.late_rate.value == pytest.approx(p.mean(), abs=1e-12)
    assert found.auc is not None
    assert found.recall is not None
    aucs, recalls, rates = [], [], []
    for _ in range(400):
        late = random.random(len(p)) < p
        aucs.append(roc_auc_score(late, margins))
        recalls.append(POLICY.late_many(margins)[late].mean())
        rates.append(late.mean())
    for each, drawn in ((found.auc, aucs), (found.recall, recalls), (found.late_rate, rates)):
        assert each.value == pytest.approx(np.mean(drawn), abs=0.004)
        inside = np.mean((np.array(drawn) >= each.low) & (np.array(drawn) <= each.high))
        assert 0.91 <= inside <= 0.985
    few = Scores.of(margins[:200]).estimated(POLICY).auc
    assert few is not None
    assert few.high - few.low > 2 * (found.auc.high - found.auc.low)


@pytest.mark.parametrize("loans", [1, 2, 500])
def test_nothing_is_said_of_the_order_of_loans_that_are_all_alike(loans: int) -> None:
    found = Scores.of(np.full(loans, -3.0)).estimated(POLICY)
    assert found.auc is None
    assert found.late_rate.value == pytest.approx(probabilities(np.array([-3.0]))[0])


def test_outcomes_are_regressed_on_margins() -> None:
    random = np.random.default_rng(3)
    margins = np.repeat(random.normal(-2, 1, 500), 4)
    late = (random.random(2_000) < probabilities(0.7 * margins - 0.5)).astype(np.int64)
    scores = Scores.of(margins, late)
    found = scores.calibration(POLICY)
    by_library = LogisticRegression(C=1e12, tol=1e-10, max_iter=500)
    by_library.fit(margins.reshape(-1, 1), late)
    assert found.slope == pytest.approx(by_library.coef_[0, 0], abs=1e-4)
    assert found.intercept == pytest.approx(by_library.intercept_[0], abs=1e-4)
    parted = Scores.of(np.repeat([-1.0, 1.0], 5), np.repeat([0, 1], 5)).calibration(POLICY)
    alike = Scores.of(np.full(5, -1.0), np.array([1, 1, 0, 0, 0])).calibration(POLICY)
    assert (parted.slope, parted.intercept, alike.slope, alike.intercept) == (None,) * 4


@pytest.mark.parametrize("count", [0, 1, 4, 60])
def test_an_interval_of_few_events_is_the_exact_one(count: int) -> None:
    """F. Garwood (1936): by quantiles of the gamma distribution."""
    low, high = poisson(count)
    assert low == pytest.approx(gamma.ppf(0.025, count) if count else 0.0, abs=0.02)
    assert high == pytest.approx(gamma.ppf(0.975, count + 1), rel=0.01)


@pytest.mark.parametrize(("level", "spoken"), [(1.0, []), (0.5, [0.8]), (1.7, [1.25])])
def test_calibration_speaks_where_outcomes_are_not_those_expected(
    level: float, spoken: list[float]
) -> None:
    random = np.random.default_rng(4)
    margins = random.normal(-3.6, 0.8, 20_000)
    late = (random.random(20_000) < level * probabilities(margins)).astype(np.int64)
    calibration = Scores.of(margins, late).calibration(POLICY)
    assert calibration.ratio.low < level < calibration.ratio.high
    assert [each.limit for each in rules.check_calibration(Rules(), calibration)] == spoken


@given(st.integers(1, 5_000), st.floats(0, 1), st.sampled_from([0.05, 0.001, 1e-6]))
def test_a_shares_interval_is_the_exact_one(whole: int, share: float, wrong: float) -> None:
    count = round(share * whole)
    expected = binomtest(count, whole).proportion_ci(1 - wrong)
    assert exact_share(count, whole, wrong) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize(("level", "loans"), [(-3.6, 200), (-3.6, 2_000), (1.5, 300), (-0.2, 60)])
def test_the_interval_of_an_auc_holds_as_often_as_it_says(level: float, loans: int) -> None:
    """Of few late loans, of few on time, and of many: where probabilities are right."""
    random = np.random.default_rng(7)
    margins = random.normal(level, 1.2, 200_000)
    p = probabilities(margins)
    true = float(roc_auc_score(random.random(len(p)) < p, margins))
    missed = Counter[str]()
    windows = 400
    for _ in range(windows):
        rows = random.integers(0, len(p), loans)
        late = (random.random(loans) < p[rows]).astype(np.int64)
        found = Scores.of(margins[rows], late).realised_auc(0.05)
        if found is not None:
            missed["low"] += true < found.low
            missed["high"] += true > found.high
    # Of 2.5 % on either side, what chance makes of it four times of five standard deviations.
    assert max(missed.values()) <= 0.025 * windows + 5 * math.sqrt(0.025 * windows)


def test_an_auc_at_the_end_of_the_scale_is_no_sure_one() -> None:
    margins = np.linspace(-5, -1, 60)
    for late in ((margins > -1.4), (margins < -4.6)):
        found = Scores.of(margins, late.astype(np.int64)).realised_auc()
        assert found is not None
        assert found.value in (0.0, 1.0)
        assert 0.1 < found.high - found.low < 0.6
    alike = Scores.of(np.full(20, -1.0), np.arange(20) % 2).realised_auc()
    assert alike == Estimate(0.5, 0.0, 1.0)


@pytest.mark.parametrize("n_late", [1, 4])
def test_nothing_is_said_of_the_ranking_of_few_late_loans(n_late: int) -> None:
    """The riskiest loans are the only ones on time, and the other way round."""
    margins = np.linspace(-5, -1, 50)
    late = (np.arange(50) < n_late).astype(np.int64)
    for outcomes in (late, 1 - late):
        scores = Scores.of(margins, outcomes)
        assert scores.realised_auc(rules.SIGNIFICANCE) is None
        assert scores.realised(POLICY).auc is None
