"""The search: the order of grids, folds without leaks, and the choice of a candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.stats import t

from peerloan.loan import Definition, Field, Label, Loans, default_definition
from peerloan.model import Policy, Scorecard
from peerloan.registry import OnnxParts
from peerloan.sample_data import batches
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import Reliability
from peerloan.training import CANDIDATES
from peerloan.training.calibration import fit_calibration
from peerloan.training.candidates import Candidate, Hyperparameters
from peerloan.training.evaluation import FIGURES, performance_figures
from peerloan.training.search import (
    RUNGS,
    Rung,
    SearchPlan,
    SearchResult,
    Trial,
    choose,
    first_settings,
    read_grids,
    search,
)

THRESHOLD = Policy.by_cost().threshold_margin
RESAMPLINGS = ["none", "class-weight", "smote"]
TOY = Definition(
    "toy",
    Label("outcome", "1", "0"),
    (Field("risk", "number", "Risk"), Field("row", "number", "Row")),
)


# Grids


def test_grids_have_the_order_of_the_candidates_from_simple_to_complex() -> None:
    assert list(read_grids()) == ["binned", "additive", "logistic", "boosted", "basic"]
    assert list(read_grids()) == list(CANDIDATES)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_each_candidate_tries_all_settings_with_each_resampling(candidate: str) -> None:
    grid = read_grids()[candidate]
    values: dict[str, list[object]] = {name: [] for name in RESAMPLINGS}
    for settings in grid:
        values[settings.resampling].append(settings.values)
    assert values["none"]
    assert values["none"] == values["class-weight"] == values["smote"]
    assert len({str(settings) for settings in grid}) == len(grid)
    assert len({tuple(settings.values) for settings in grid}) == 1


def test_a_quick_search_tries_the_first_setting_of_each_grid() -> None:
    grids = read_grids()
    first = first_settings(grids)
    assert first == {name: [grid[0]] for name, grid in grids.items()}
    assert {settings.resampling for (settings,) in first.values()} == {"none"}


def test_the_text_of_settings() -> None:
    assert str(Hyperparameters({"C": 0.1, "depth": 2})) == "C=0.1, depth=2"
    assert str(Hyperparameters({"C": 0.1}, "smote")) == "C=0.1, smote"


# A trial


def trial(candidate: str, *auc: float) -> Trial:
    """A trial that has only the AUC of each fold."""
    by_fold = tuple({"auc": fold_auc} for fold_auc in auc)
    no_margins = np.empty(0)
    no_reliability = Reliability((), (), (), 1.0, 0.0, 0.0, 0.0)
    fold = no_margins.astype(np.int64)
    return Trial(
        candidate,
        Hyperparameters({}),
        0,
        by_fold,
        no_margins,
        no_margins,
        fold,
        no_reliability,
        no_reliability,
    )


def test_mean_error_and_interval_by_hand() -> None:
    three = trial("a", 0.70, 0.72, 0.74)
    assert three.mean("auc") == pytest.approx(0.72)
    assert three.error("auc") == pytest.approx(0.02 / math.sqrt(3))
    # Of Student's t with two degrees of freedom, 95 % lie within 4.3027.
    reach = 4.3027 * 0.02 / math.sqrt(3)
    assert three.interval("auc") == pytest.approx((0.72 - reach, 0.72 + reach), abs=1e-5)
    five = trial("a", 0.5, 0.6, 0.7, 0.8, 0.9)
    assert float(t.ppf(0.975, 4)) == pytest.approx(2.7764, abs=1e-4)
    low, high = five.interval("auc")
    assert (high - low) / 2 == pytest.approx(2.7764 * math.sqrt(0.025 / 5), abs=1e-4)


# The choice


def test_the_best_candidate_is_chosen_if_no_simpler_one_is_within_one_error() -> None:
    best = trial("boosted", 0.75, 0.77, 0.79)
    # Always 0.02 or more behind: by 0.02, 0.03 and 0.04, with an error of 0.0091.
    simple = trial("binned", 0.73, 0.74, 0.75)
    chosen, why = choose([simple, best])
    assert chosen is best
    assert why == (
        "boosted has the best mean AUC (0.7700), and no simpler candidate is within one standard "
        "error of it"
    )


def test_the_simplest_candidate_within_one_standard_error_is_chosen() -> None:
    best = trial("boosted", 0.74, 0.77, 0.80)
    # Behind by 0.01, −0.01 and 0.02: 0.0067 on average, with a deviation of 0.0153; the error is
    # that times √(1/3 + 1/2).
    near = trial("additive", 0.73, 0.78, 0.78)
    nearer = trial("logistic", 0.74, 0.77, 0.79)
    chosen, why = choose([near, nearer, best])
    assert chosen is near
    assert why == (
        "boosted has the best mean AUC (0.7700); additive is simpler and only 0.0067 behind, "
        "within one standard error (0.0139)"
    )
    far = trial("binned", 0.70, 0.73, 0.77)
    assert choose([far, near, nearer, best])[0] is near


def test_the_error_is_that_of_the_paired_difference() -> None:
    """A small difference counts if it is the same in all folds, however the folds vary."""
    best = trial("boosted", 0.60, 0.70, 0.80)
    behind = trial("binned", 0.59, 0.69, 0.789)
    assert behind.error("auc") > 0.05
    assert choose([behind, best])[0] is best


def test_a_difference_of_exactly_one_standard_error_is_within_it() -> None:
    best = trial("boosted", 0.75, 0.75)
    # Two folds, behind by x and 0: x/2 on average, and an error of x/√2 · √(1/2 + 1).
    assert choose([trial("binned", 0.75, 0.5), best])[0].candidate == "binned"
    # By 0.25 and 0.25·r: as much on average as the error, where (1 + r)/2 = (1 − r)·√3/2.
    r = (math.sqrt(3) - 1) / (math.sqrt(3) + 1)
    for excess, name in ((-1e-6, "binned"), (1e-6, "boosted")):
        near = trial("binned", 0.5, 0.75 - 0.25 * r - excess)
        assert choose([near, best])[0].candidate == name


def test_the_simplest_of_equal_candidates_is_chosen() -> None:
    same = [trial(name, 0.7, 0.8) for name in ("binned", "additive", "basic")]
    assert choose(same)[0] is same[0]
    assert "binned has the best mean AUC (0.7500)" in choose(same)[1]
    assert choose(same[2:])[0] is same[2]


def test_a_simpler_and_better_candidate_is_chosen() -> None:
    best, other = trial("binned", 0.75, 0.77), trial("boosted", 0.70, 0.71)
    assert choose([best, other])[0] is best


def test_a_more_complex_candidate_than_the_best_is_not_chosen() -> None:
    best, near = trial("binned", 0.75, 0.77), trial("boosted", 0.76, 0.755)
    assert choose([best, near])[0] is best


# The search, with candidates that add noise to the true risk


def toy(size: int, seed: int = 1) -> tuple[Loans, Numbers]:
    """Loans with their true risk as a field; about a third are late."""
    random = np.random.default_rng(seed)
    risk = random.normal(size=size)
    late = (random.random(size) < 1 / (1 + np.exp(1 - 1.5 * risk))).astype(np.float64)
    rows = list(zip(risk.tolist(), np.arange(size, dtype=np.float64).tolist(), strict=True))
    return Loans.of(TOY, rows), late


@dataclass
class Fit:
    """A fitted toy candidate: the risk with noise, on a wrong scale."""

    settings: Hyperparameters
    fitted_on: Loans
    evaluations: list[tuple[frozenset[float], frozenset[float]]]

    def margins(self, loans: Loans) -> Numbers:
        rows = loans.numbers("row")
        self.evaluations.append((frozenset(self.fitted_on.numbers("row")), frozenset(rows)))
        random = np.random.default_rng(0)
        noise = random.normal(size=100_000)[rows.astype(np.int64)]
        noisy: Numbers = loans.numbers("risk") + self.settings["noise"] * noise
        return 7 + 0.2 * noisy

    def compile(self, loans: Loans) -> Scorecard | OnnxParts:  # noqa: ARG002
        raise AssertionError("a search must not compile")


@dataclass
class Toys:
    """Toy candidates `a`, `b` and `c`, with the calls that they received.

    `fits` are the candidate, the noise and the number of loans; `evaluations` are the rows that a
    candidate was fitted on, and the rows that it was evaluated on.
    """

    fits: list[tuple[str, float, int]] = field(default_factory=list)
    evaluations: list[tuple[frozenset[float], frozenset[float]]] = field(default_factory=list)

    def plan(self, grids: Mapping[str, Sequence[Hyperparameters]], *rungs: Rung) -> SearchPlan:
        candidates = {name: self._candidate(name) for name in "abc"}
        return SearchPlan(grids, rungs=rungs or RUNGS, candidates=candidates)

    def _candidate(self, name: str) -> Candidate:
        def fit(loans: Loans, late: Numbers, settings: Hyperparameters, progress: object) -> Fit:
            assert len(late) == loans.size
            self.fits.append((name, settings["noise"], loans.size))
            return Fit(settings, loans, self.evaluations)

        return fit


@pytest.fixture
def toys() -> Toys:
    return Toys()


def grid(*noises: float) -> list[Hyperparameters]:
    return [Hyperparameters({"noise": noise}) for noise in noises]


def run(size: int, plan: SearchPlan) -> SearchResult:
    return search(*toy(size), plan, THRESHOLD, lambda _step, _done: None)


def test_a_candidates_best_mean_is_taken_and_the_first_of_equal_ones(toys: Toys) -> None:
    same = [*grid(1.0), Hyperparameters({"noise": 1.0}, "smote")]
    found = run(600, toys.plan({"a": grid(2.0, 0.5, 1.0), "b": same}))
    assert [each.candidate for each in found.best] == ["a", "b"]
    assert [each.settings["noise"] for each in found.best] == [0.5, 1.0]
    assert found.best[1].settings.resampling == "none"
    assert found.chosen is found.best[0]
    assert len(found.tried) == 5
    assert set(map(id, found.best)) <= set(map(id, found.tried))


def test_each_loan_is_evaluated_once_by_a_model_that_was_not_fitted_on_it(toys: Toys) -> None:
    found = run(600, toys.plan({"a": grid(1.0)}))
    (only,) = found.best
    assert only.loans == 600
    assert sorted(np.bincount(only.fold).tolist()) == [120] * 5
    assert sorted(row for _, rows in toys.evaluations for row in rows) == list(range(600))
    for fitted_on, evaluated_on in toys.evaluations:
        assert not fitted_on & evaluated_on
        assert len(fitted_on | evaluated_on) == 600


def test_folds_are_stratified_and_the_same_for_every_candidate(toys: Toys) -> None:
    loans, late = toy(600)
    plan = toys.plan({"a": grid(1.0), "b": grid(2.0)})
    first, second = search(loans, late, plan, THRESHOLD, lambda *_: None).best
    assert (first.fold == second.fold).all()
    by_fold = np.bincount(first.fold, late)
    assert by_fold.max() - by_fold.min() <= 1


def test_figures_are_those_of_margins_calibrated_on_the_other_folds(toys: Toys) -> None:
    loans, late = toy(600)
    (only,) = search(loans, late, toys.plan({"a": grid(0.5)}), THRESHOLD, lambda *_: None).best
    assert set(only.by_fold[0]) == set(FIGURES)
    for number, figures in enumerate(only.by_fold):
        in_fold = only.fold == number
        scale = fit_calibration(only.margins[~in_fold], late[~in_fold])
        calibrated = scale.apply(only.margins[in_fold])
        expected = performance_figures(late[in_fold], calibrated, THRESHOLD)
        assert figures == pytest.approx(expected, abs=1e-12)
    # Without calibration these margins predict nearly every loan as late.
    assert float(np.mean(1 / (1 + np.exp(-only.margins)))) > 0.99
    rate = float(late.mean())
    guessing = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    assert only.mean("log_loss") < guessing


def test_a_trial_has_figures_at_another_threshold(toys: Toys) -> None:
    loans, late = toy(600)
    (only,) = search(loans, late, toys.plan({"a": grid(0.5)}), THRESHOLD, lambda *_: None).best
    same = only.at_threshold(THRESHOLD, late)
    assert same.by_fold == only.by_fold
    none = only.at_threshold(50.0, late)
    assert (none.mean("flagged"), none.mean("recall")) == (0.0, 0.0)
    assert none.mean("auc") == only.mean("auc")
    all_flagged = only.at_threshold(-50.0, late)
    assert (all_flagged.mean("flagged"), all_flagged.mean("recall")) == (1.0, 1.0)


FIRST_RUNG, SECOND_RUNG = Rung(300, 3, 1 / 4), Rung(900, 3, 1 / 4)


def test_halving_drops_settings_but_never_a_candidate(toys: Toys) -> None:
    noises = (3.0, 0.1, 0.2, 5.0, 8.0, 0.3, 6.0, 7.0)
    grids = {"a": grid(*noises), "b": grid(50.0), "c": grid(20.0, 30.0)}
    found = run(2000, toys.plan(grids, FIRST_RUNG, SECOND_RUNG))
    settings: dict[int, dict[str, set[float]]] = {}
    for name, noise, size in toys.fits:
        settings.setdefault(size, {}).setdefault(name, set()).add(noise)
    # A candidate is fitted on the loans of a rung without one of its folds.
    sizes = {200: "first", 600: "second", 1600: "all"}
    by_rung = {sizes[size]: tried for size, tried in settings.items()}
    assert {name: len(each) for name, each in by_rung["first"].items()} == {"a": 8, "b": 1, "c": 2}
    # Two of eight settings are promoted; a candidate with few settings keeps its best one.
    assert {name: len(each) for name, each in by_rung["second"].items()} == {"a": 2, "b": 1, "c": 1}
    assert {name: len(each) for name, each in by_rung["all"].items()} == {"a": 1, "b": 1, "c": 1}
    assert by_rung["second"]["a"] <= {0.1, 0.2, 0.3}
    assert by_rung["all"]["a"] <= by_rung["second"]["a"]
    assert [each.candidate for each in found.best] == ["a", "b", "c"]
    assert {each.loans for each in found.best} == {2000}
    assert [len(each.by_fold) for each in found.best] == [5, 5, 5]
    assert [each.loans for each in found.tried] == [300] * 11 + [900] * 4 + [2000] * 3


def test_copies_of_a_loan_stay_in_one_fold_of_every_rung(toys: Toys) -> None:
    loans, late = toy(2000)
    rows = np.repeat(np.arange(2000), 2)
    plan = toys.plan({"a": grid(1.0, 2.0)}, SECOND_RUNG)
    search(loans.take(rows), late[rows], plan, THRESHOLD, lambda *_: None)
    assert {size for _, _, size in toys.fits if size < 900}, "the rung is tried"
    assert not any(fitted & evaluated for fitted, evaluated in toys.evaluations)


def test_a_small_table_has_no_rungs(toys: Toys) -> None:
    plan = toys.plan({"a": grid(1.0, 2.0, 3.0)}, FIRST_RUNG, SECOND_RUNG)
    found = run(600, plan)
    assert [each.loans for each in found.tried] == [600] * 3
    found = run(1000, plan)
    assert [each.loans for each in found.tried] == [300] * 3 + [1000]


def test_candidates_with_one_setting_need_no_halving(toys: Toys) -> None:
    found = run(1000, toys.plan({"a": grid(1.0), "b": grid(2.0)}, Rung(100, 3, 1 / 4)))
    assert [each.loans for each in found.tried] == [1000] * 2


def test_progress_rises_to_the_end_of_each_step(toys: Toys) -> None:
    reported: dict[str, list[float]] = {}
    search(
        *toy(1000),
        toys.plan({"a": grid(1.0, 2.0), "b": grid(1.0)}, FIRST_RUNG),
        THRESHOLD,
        lambda step, done: reported.setdefault(step, []).append(done),
    )
    assert list(reported) == ["trying settings on 300 loans", "trying settings on 1,000 loans"]
    for fractions in reported.values():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


def test_the_same_table_gives_the_same_result_again() -> None:
    """With everything random: synthetic loans, subsamples, and the held-out loans."""
    definition = default_definition()
    rows = [row for batch in batches(1500, seed=5) for row in batch.to_pylist()]
    loans = Loans.of(definition, [tuple(row[name] for name in definition.names) for row in rows])
    late = (np.arange(1500) % 12 == 0).astype(np.float64)
    grids = {
        "logistic": [
            Hyperparameters({"C": 0.1}, "smote"),
            Hyperparameters({"C": 1.0}, "class-weight"),
        ],
        "boosted": [Hyperparameters({"depth": 2, "eta": 0.1, "min_child_weight": 1}, "smote")],
    }
    plan = SearchPlan(grids, rungs=(Rung(700, 3, 1 / 2),))
    first, again = (search(loans, late, plan, THRESHOLD, lambda *_: None) for _ in range(2))
    assert first.why == again.why
    assert first.chosen.candidate == again.chosen.candidate
    for one, other in zip(first.tried, again.tried, strict=True):
        assert (one.candidate, one.settings, one.by_fold) == (
            other.candidate,
            other.settings,
            other.by_fold,
        )
        assert (one.margins == other.margins).all()


def test_a_rung_with_too_few_late_loans_is_skipped(toys: Toys) -> None:
    loans, late = toy(20_000)
    rare = np.zeros(20_000)
    rare[np.flatnonzero(late)[:25]] = 1
    plan = toys.plan({"a": grid(1.0, 2.0)})
    found = search(loans, rare, plan, THRESHOLD, lambda *_: None)
    assert {trial.loans for trial in found.tried} == {20_000}
