"""The search: grids in order, folds that never see their own loans, and the choice at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
from peerloan.training import search as search_module
from peerloan.training.calibration import fit_calibration
from peerloan.training.candidates import Hyperparameters
from peerloan.training.evaluation import FIGURES, performance_figures
from peerloan.training.search import SearchResult, Trial, choose, quick, read_grids, search

THRESHOLD = Policy.by_cost().threshold_margin
RESAMPLINGS = ["none", "class-weight", "smote"]
TOY = Definition(
    "toy",
    Label("outcome", "1", "0"),
    (Field("risk", "number", "Risk"), Field("row", "number", "Row")),
)


# Grids


def test_grids_are_read_in_the_order_of_the_file_simplest_first() -> None:
    assert list(read_grids()) == ["binned", "additive", "logistic", "boosted", "basic"]
    assert list(read_grids()) == list(CANDIDATES)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_every_candidate_has_every_setting_with_and_without_resampling(candidate: str) -> None:
    grid = read_grids()[candidate]
    values: dict[str, list[object]] = {name: [] for name in RESAMPLINGS}
    for settings in grid:
        values[settings.resampling].append(settings.values)
    assert values["none"]
    assert values["none"] == values["class-weight"] == values["smote"]
    assert len({str(settings) for settings in grid}) == len(grid)
    assert len({tuple(settings.values) for settings in grid}) == 1


def test_quick_takes_the_first_setting_of_each() -> None:
    grids = read_grids()
    first = quick(grids)
    assert first == {name: [grid[0]] for name, grid in grids.items()}
    assert {each.resampling for (each,) in first.values()} == {"none"}


def test_settings_say_what_they_are() -> None:
    assert str(Hyperparameters({"C": 0.1, "depth": 2})) == "C=0.1, depth=2"
    assert str(Hyperparameters({"C": 0.1}, "smote")) == "C=0.1, smote"


# A trial


def trial(candidate: str, *auc: float) -> Trial:
    """A trial of which only the AUC by fold is known."""
    by_fold = tuple({"auc": each} for each in auc)
    nothing = np.empty(0)
    unknown = Reliability((), (), (), 1.0, 0.0, 0.0, 0.0)
    fold = nothing.astype(np.int64)
    return Trial(
        candidate, Hyperparameters({}), 0, by_fold, nothing, nothing, fold, unknown, unknown
    )


def test_mean_error_and_interval_by_hand() -> None:
    found = trial("a", 0.70, 0.72, 0.74)
    assert found.mean("auc") == pytest.approx(0.72)
    assert found.error("auc") == pytest.approx(0.02 / math.sqrt(3))
    # Of Student's t with two degrees of freedom, 95 % lie within 4.3027.
    reach = 4.3027 * 0.02 / math.sqrt(3)
    assert found.interval("auc") == pytest.approx((0.72 - reach, 0.72 + reach), abs=1e-5)
    five = trial("a", 0.5, 0.6, 0.7, 0.8, 0.9)
    assert float(t.ppf(0.975, 4)) == pytest.approx(2.7764, abs=1e-4)
    low, high = five.interval("auc")
    assert (high - low) / 2 == pytest.approx(2.7764 * math.sqrt(0.025 / 5), abs=1e-4)


# The choice


def test_the_best_is_chosen_where_no_simpler_one_is_near() -> None:
    best = trial("boosted", 0.75, 0.77, 0.79)
    # Always 0.02 or more behind: by 0.02, 0.03 and 0.04, with an error of 0.0091.
    simple = trial("binned", 0.73, 0.74, 0.75)
    chosen, why = choose([simple, best])
    assert chosen is best
    assert why == (
        "boosted has the best mean AUC (0.7700), and no simpler candidate is within one standard "
        "error of it"
    )


def test_the_simplest_within_one_standard_error_wins() -> None:
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
    """Figures that vary by fold hide no difference that is the same in every fold."""
    best = trial("boosted", 0.60, 0.70, 0.80)
    behind = trial("binned", 0.59, 0.69, 0.789)
    assert behind.error("auc") > 0.05
    assert choose([behind, best])[0] is best


def test_one_standard_error_exactly_is_within() -> None:
    best = trial("boosted", 0.75, 0.75)
    # Two folds, behind by x and 0: x/2 on average, and an error of x/√2 · √(1/2 + 1).
    assert choose([trial("binned", 0.75, 0.5), best])[0].candidate == "binned"
    # By 0.25 and 0.25·r: as much on average as the error, where (1 + r)/2 = (1 − r)·√3/2.
    r = (math.sqrt(3) - 1) / (math.sqrt(3) + 1)
    for more, name in ((-1e-6, "binned"), (1e-6, "boosted")):
        near = trial("binned", 0.5, 0.75 - 0.25 * r - more)
        assert choose([near, best])[0].candidate == name


def test_of_equals_the_simplest_is_chosen_and_one_alone_is_it() -> None:
    same = [trial(name, 0.7, 0.8) for name in ("binned", "additive", "basic")]
    assert choose(same)[0] is same[0]
    assert "binned has the best mean AUC (0.7500)" in choose(same)[1]
    assert choose(same[2:])[0] is same[2]


def test_a_simpler_one_that_is_better_is_no_exception() -> None:
    best, other = trial("binned", 0.75, 0.77), trial("boosted", 0.70, 0.71)
    assert choose([best, other])[0] is best


def test_a_more_complex_one_is_never_chosen_over_the_best() -> None:
    best, near = trial("binned", 0.75, 0.77), trial("boosted", 0.76, 0.755)
    assert choose([best, near])[0] is best


# The search itself, with candidates that know the risk and add what the settings say


def toy(size: int, seed: int = 1) -> tuple[Loans, Numbers]:
    """Loans with a known risk, of which about a third are late."""
    random = np.random.default_rng(seed)
    risk = random.normal(size=size)
    late = (random.random(size) < 1 / (1 + np.exp(1 - 1.5 * risk))).astype(np.float64)
    rows = list(zip(risk.tolist(), np.arange(size, dtype=np.float64).tolist(), strict=True))
    return Loans.of(TOY, rows), late


@dataclass
class Fit:
    """A fitted toy candidate: noise hides the risk, and the scale is wrong."""

    settings: Hyperparameters
    fitted_on: Loans
    judged: list[tuple[frozenset[float], frozenset[float]]]

    def margins(self, loans: Loans) -> Numbers:
        own = loans.numbers("row")
        self.judged.append((frozenset(self.fitted_on.numbers("row")), frozenset(own)))
        random = np.random.default_rng(0)
        noise = random.normal(size=100_000)[own.astype(np.int64)]
        noisy: Numbers = loans.numbers("risk") + self.settings["noise"] * noise
        return 7 + 0.2 * noisy

    def compile(self, loans: Loans) -> Scorecard | OnnxParts:  # noqa: ARG002
        raise AssertionError("a search deploys nothing")


@dataclass
class Toys:
    """What the toy candidates were asked."""

    sizes: list[tuple[str, float, int]]
    judged: list[tuple[frozenset[float], frozenset[float]]]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Toys:
    asked = Toys([], [])

    def candidate(name: str) -> Callable[..., Fit]:
        def fit(loans: Loans, late: Numbers, settings: Hyperparameters, progress: object) -> Fit:
            assert len(late) == loans.size
            asked.sizes.append((name, settings["noise"], loans.size))
            return Fit(settings, loans, asked.judged)

        return fit

    monkeypatch.setattr(search_module, "CANDIDATES", {name: candidate(name) for name in "abc"})
    return asked


def grid(*noise: float) -> list[Hyperparameters]:
    return [Hyperparameters({"noise": each}) for each in noise]


def run(size: int, grids: Mapping[str, Sequence[Hyperparameters]]) -> SearchResult:
    return search(*toy(size), grids, THRESHOLD, lambda _what, _done: None)


def test_a_candidates_best_mean_wins_and_of_equals_the_first(toys: Toys) -> None:
    same = [*grid(1.0), Hyperparameters({"noise": 1.0}, "smote")]
    found = run(600, {"a": grid(2.0, 0.5, 1.0), "b": same})
    assert [each.candidate for each in found.best] == ["a", "b"]
    assert [each.settings["noise"] for each in found.best] == [0.5, 1.0]
    assert found.best[1].settings.resampling == "none"
    assert found.chosen is found.best[0]
    assert len(found.tried) == 5
    assert set(map(id, found.best)) <= set(map(id, found.tried))


def test_every_loan_is_judged_once_by_a_model_that_never_saw_it(toys: Toys) -> None:
    found = run(600, {"a": grid(1.0)})
    (only,) = found.best
    assert only.loans == 600
    assert sorted(np.bincount(only.fold).tolist()) == [120] * 5
    assert sorted(row for _, judged in toys.judged for row in judged) == list(range(600))
    for fitted_on, judged in toys.judged:
        assert not fitted_on & judged
        assert len(fitted_on | judged) == 600


def test_folds_are_stratified_and_the_same_for_every_candidate(toys: Toys) -> None:
    loans, late = toy(600)
    found = search(loans, late, {"a": grid(1.0), "b": grid(2.0)}, THRESHOLD, lambda *_: None)
    first, second = found.best
    assert (first.fold == second.fold).all()
    by_fold = np.bincount(first.fold, late)
    assert by_fold.max() - by_fold.min() <= 1


def test_figures_are_of_margins_calibrated_without_the_loans_own_fold(toys: Toys) -> None:
    loans, late = toy(600)
    (only,) = search(loans, late, {"a": grid(0.5)}, THRESHOLD, lambda *_: None).best
    assert set(only.by_fold[0]) == set(FIGURES)
    for number, found in enumerate(only.by_fold):
        own = only.fold == number
        scale = fit_calibration(only.margins[~own], late[~own])
        due = performance_figures(late[own], scale.apply(only.margins[own]), THRESHOLD)
        assert found == pytest.approx(due, abs=1e-12)
    # As they come, these margins say that nearly every loan is late.
    assert float(np.mean(1 / (1 + np.exp(-only.margins)))) > 0.99
    rate = float(late.mean())
    guessing = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    assert only.mean("log_loss") < guessing


def test_a_trial_can_be_judged_at_another_threshold(toys: Toys) -> None:
    loans, late = toy(600)
    (only,) = search(loans, late, {"a": grid(0.5)}, THRESHOLD, lambda *_: None).best
    same = only.at_threshold(THRESHOLD, late)
    assert same.by_fold == only.by_fold
    none = only.at_threshold(50.0, late)
    assert (none.mean("flagged"), none.mean("recall")) == (0.0, 0.0)
    assert none.mean("auc") == only.mean("auc")
    every = only.at_threshold(-50.0, late)
    assert (every.mean("flagged"), every.mean("recall")) == (1.0, 1.0)


def test_halving_drops_settings_but_never_a_candidate(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "RUNGS", ((300, 3, 1 / 4), (900, 3, 1 / 4)))
    noises = (3.0, 0.1, 0.2, 5.0, 8.0, 0.3, 6.0, 7.0)
    found = run(2000, {"a": grid(*noises), "b": grid(50.0), "c": grid(20.0, 30.0)})
    settings: dict[int, dict[str, set[float]]] = {}
    for name, noise, size in toys.sizes:
        settings.setdefault(size, {}).setdefault(name, set()).add(noise)
    # Each size is that of a rung without one of its folds.
    sizes = {200: "first", 600: "second", 1600: "all"}
    by_rung = {sizes[size]: tried for size, tried in settings.items()}
    assert {name: len(each) for name, each in by_rung["first"].items()} == {"a": 8, "b": 1, "c": 2}
    # Two of eight go on; a candidate with few keeps its best.
    assert {name: len(each) for name, each in by_rung["second"].items()} == {"a": 2, "b": 1, "c": 1}
    assert {name: len(each) for name, each in by_rung["all"].items()} == {"a": 1, "b": 1, "c": 1}
    assert by_rung["second"]["a"] <= {0.1, 0.2, 0.3}
    assert by_rung["all"]["a"] <= by_rung["second"]["a"]
    assert [each.candidate for each in found.best] == ["a", "b", "c"]
    assert {each.loans for each in found.best} == {2000}
    assert [len(each.by_fold) for each in found.best] == [5, 5, 5]
    assert [each.loans for each in found.tried] == [300] * 11 + [900] * 4 + [2000] * 3


def test_copies_of_a_loan_stay_in_one_fold_of_every_rung(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "RUNGS", ((900, 3, 1 / 4),))
    loans, late = toy(2000)
    rows = np.repeat(np.arange(2000), 2)
    search(loans.take(rows), late[rows], {"a": grid(1.0, 2.0)}, THRESHOLD, lambda *_: None)
    assert {size for _, _, size in toys.sizes if size < 900}, "the rung is tried"
    assert not any(fitted & judged for fitted, judged in toys.judged)


def test_a_small_table_is_judged_whole_at_once(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "RUNGS", ((300, 3, 1 / 4), (900, 3, 1 / 4)))
    found = run(600, {"a": grid(1.0, 2.0, 3.0)})
    assert [each.loans for each in found.tried] == [600] * 3
    found = run(1000, {"a": grid(1.0, 2.0, 3.0)})
    assert [each.loans for each in found.tried] == [300] * 3 + [1000]


def test_a_single_setting_each_needs_no_halving(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "RUNGS", ((100, 3, 1 / 4),))
    found = run(1000, {"a": grid(1.0), "b": grid(2.0)})
    assert [each.loans for each in found.tried] == [1000] * 2


def test_progress_rises_to_the_end_of_each_step(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "RUNGS", ((300, 3, 1 / 4),))
    told: dict[str, list[float]] = {}
    search(
        *toy(1000),
        {"a": grid(1.0, 2.0), "b": grid(1.0)},
        THRESHOLD,
        lambda what, done: told.setdefault(what, []).append(done),
    )
    assert list(told) == ["trying settings on 300 loans", "trying settings on 1,000 loans"]
    for each in told.values():
        assert each == sorted(each)
        assert each[-1] == 1.0


def test_the_same_table_gives_the_same_result_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is random in a candidate: synthetic loans, subsamples, loans set aside."""
    monkeypatch.setattr(search_module, "RUNGS", ((700, 3, 1 / 2),))
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
    first, again = (search(loans, late, grids, THRESHOLD, lambda *_: None) for _ in range(2))
    assert first.why == again.why
    assert first.chosen.candidate == again.chosen.candidate
    for one, other in zip(first.tried, again.tried, strict=True):
        assert (one.candidate, one.settings, one.by_fold) == (
            other.candidate,
            other.settings,
            other.by_fold,
        )
        assert (one.margins == other.margins).all()


def test_a_part_that_would_hold_too_few_late_loans_is_not_tried_on(toys: Toys) -> None:
    loans, late = toy(20_000)
    rare = np.zeros(20_000)
    rare[np.flatnonzero(late)[:25]] = 1
    found = search(loans, rare, {"a": grid(1.0, 2.0)}, THRESHOLD, lambda *_: None)
    assert {trial.loans for trial in found.tried} == {20_000}
