"""Compiled estimators equal the fitted ones: at all edges, and for all kinds of values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import example, given
from hypothesis import strategies as st

from peerloan.loan import Definition, Field, Label, Loans, Value, default_definition
from peerloan.model import LevelTable, NumberTable, Scorecard
from peerloan.model.arithmetic import PlattCalibration
from peerloan.model.encoding import to_single
from peerloan.model.onnx_model import FLOOR, OnnxModel
from peerloan.registry import OnnxParts
from peerloan.sample_data import draw
from peerloan.stats.arrays import Numbers
from peerloan.training.candidates import CANDIDATES, Hyperparameters
from peerloan.training.compile.scorecard import compile_trees, exact_edge, rescaled
from peerloan.training.compile.trees import floor_single
from peerloan.training.fit_encoding import fit_encoding
from peerloan.training.resampling import Resampling

LARGEST = float(np.finfo(np.float32).max)
# The smallest double that rounds to infinity in single precision.
OVERFLOW = (LARGEST + 2.0**128) / 2

singles = st.floats(width=32, allow_nan=False)
doubles = st.floats(allow_nan=False)


def single(x: float) -> Any:
    with np.errstate(over="ignore"):
        return np.float32(x)


@given(singles, doubles)
@example(LARGEST, OVERFLOW)
@example(-LARGEST, -OVERFLOW)
@example(-LARGEST, math.nextafter(-OVERFLOW, 0))
@example(-LARGEST, -1e300)
@example(math.inf, 1e300)
@example(math.inf, math.nextafter(OVERFLOW, 0))
@example(-math.inf, -math.inf)
@example(0.0, -5e-324)
@example(-0.0, 0.0)
@example(2.0**-149, 2.0**-150)
def test_a_double_is_below_the_edge_if_and_only_if_its_single_is_below_the_threshold(
    threshold: float, x: float
) -> None:
    assert bool(single(x) < single(threshold)) == (x < exact_edge(threshold))


@given(singles)
@example(0.0)
@example(2.0**-149)
@example(LARGEST)
@example(-LARGEST)
@example(math.inf)
@example(2.0**-126)
def test_the_edge_is_exact_at_its_neighbours(threshold: float) -> None:
    edge = exact_edge(threshold)
    for x in (
        edge,
        math.nextafter(edge, math.inf),
        math.nextafter(edge, -math.inf),
        threshold,
        math.nextafter(threshold, math.inf),
        math.nextafter(threshold, -math.inf),
        float(np.float32(threshold) * np.float32(1 - 2**-23)),
    ):
        assert bool(single(x) < single(threshold)) == (x < edge)


@given(singles, st.floats(allow_nan=False))
@example(-math.inf, -1e300)
@example(LARGEST, 1e300)
@example(0.0, -5e-324)
def test_a_threshold_in_single_precision_splits_singles_as_the_double_does(
    x: float, threshold: float
) -> None:
    floor = floor_single(np.array([threshold]))
    assert floor.dtype == np.float32
    assert bool(np.float32(x) <= floor[0]) == (x <= threshold)
    assert float(floor[0]) <= threshold


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_threshold_in_single_precision_is_exact_at_its_neighbours(threshold: float) -> None:
    floor = floor_single(np.array([threshold]))[0]
    with np.errstate(over="ignore"):
        above = np.nextafter(floor, np.float32(np.inf))
    assert float(floor) <= threshold
    assert float(above) > threshold


# Tables of generated loans

LABEL = Label("outcome", "bad", "good")
SIZE = Field(
    "size.of it", "ordered", "Size", levels=("< 1", "1+", "10 %", "never"), missing=True,
    riskier="lower",
)  # fmt: skip
# Of numbers and categories, with names that other tools trip over.
OTHER = Definition(
    "other",
    LABEL,
    (
        SIZE,
        Field("amount", "number", "Amount", riskier="higher"),
        Field("empty", "number", "Never given", missing=True, riskier="higher"),
        Field("no text", "category", "Never given", missing=True),
        Field("channel", "category", "Channel", levels=("web", "shop"), missing=True),
        Field("credit.score", "number", "Score", missing=True, riskier="lower"),
        Field("same", "whole", "Always the same"),
        Field("one", "category", "One level"),
        Field("town", "category", "Town"),
    ),
)
CATEGORIES = Definition("categories", LABEL, tuple(f for f in OTHER.fields if not f.is_number))
NUMBERS = Definition("numbers", LABEL, (OTHER["amount"], OTHER["credit.score"]))
# The definition, how many loans are fitted on, and how many of them are late; None: as they fall.
CASES: dict[str, tuple[Definition, int, int | None]] = {
    "peerloan": (default_definition(), 600, None),
    "other": (OTHER, 300, None),
    "few loans": (OTHER, 60, None),
    "mostly late": (OTHER, 200, 190),
    "few late": (OTHER, 200, 8),
    "categories": (CATEGORIES, 300, None),
    "numbers": (NUMBERS, 300, None),
}


def column(field: Field, rows: int, random: np.random.Generator, unseen: bool) -> list[Value]:
    values: list[Value]
    if field.name in ("empty", "no text"):
        # Missing throughout the training table, but not for ever.
        values = [None] * rows
        if unseen:
            values = [*values[: rows // 2], *([1.5 if field.is_number else "x"] * rows)][:rows]
    elif field.name == "same":
        values = [float(x) for x in random.integers(0, 9, rows)] if unseen else [7.0] * rows
    elif field.is_number:
        numbers = random.lognormal(0, 1, rows) * float(random.choice([1e-3, 1.0, 1e4, 1e9]))
        kinds = random.random(rows)
        numbers = np.where(kinds < 0.2, np.round(numbers), numbers)
        numbers = np.where(kinds > 0.7, -numbers, numbers)
        strange = [0.0, -0.0, 5e-324, 1e-45, -1e-40, 3e38, 1e39, -1e300]
        numbers[: len(strange)] = strange[:rows]
        values = numbers.tolist()
    else:
        levels = list(field.levels) or [f"town {i}" for i in range(150)]
        if field.name == "one":
            levels = ["only"]
        if field.kind == "ordered" and not unseen:
            levels.remove("never")  # what training never sees may be asked for all the same
        if unseen and field.kind == "category":
            levels += ["never seen", "🏰"]
        values = [levels[i] for i in random.integers(0, len(levels), rows)]
    if field.missing:
        gone = random.random(rows) < 0.15
        values = [None if miss else value for value, miss in zip(values, gone, strict=True)]
    return values


def table(definition: Definition, rows: int, seed: int, unseen: bool = False) -> Loans:
    random = np.random.default_rng(seed)
    if definition == default_definition():
        drawn = draw(rows, seed=seed).to_pydict()
        columns: list[list[Value]] = [drawn[name] for name in definition.names]
        for i, field in enumerate(definition.fields):
            if unseen and field.kind == "category":
                columns[i] = ["never seen" if random.random() < 0.2 else v for v in columns[i]]
    else:
        columns = [column(field, rows, random, unseen) for field in definition.fields]
    return Loans.of(definition, list(zip(*columns, strict=True)))


def labels(loans: Loans, seed: int, due: int | None = None) -> Numbers:
    """Outcomes that depend on the first number or ordered field, and on the last category."""
    random = np.random.default_rng(seed + 1)
    odds = random.normal(0, 1, loans.size)
    fields = loans.definition.fields
    numbers = [field for field in fields if field.is_number]
    texts = [field for field in fields if not field.is_number]
    if numbers:
        number = np.nan_to_num(loans.numbers(numbers[0].name))
        odds += 2 * (number > np.median(number))
    if texts:
        odds += loans.texts(texts[-1].name).codes % 2 + loans.texts(texts[0].name).codes % 2
    order = np.argsort(-odds)
    late = np.zeros(loans.size)
    late[order[: due if due is not None else loans.size // 3]] = 1
    return late


def at_the_edges(loans: Loans, card: Scorecard, random: np.random.Generator) -> Loans:
    """Replace half of the numbers by the scorecard's edges and their neighbours."""
    columns = dict(loans.columns)
    for each in card.tables:
        edges = np.array(getattr(each, "edges", ()))
        if len(edges):
            singled = to_single(edges).astype(np.float64)
            up, down = np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)
            beside = np.concatenate([edges, singled, up, down])
            values = loans.numbers(each.feature).copy()
            chosen = random.random(loans.size) < 0.5
            values[chosen] = random.choice(beside, int(chosen.sum()))
            columns[each.feature] = values
    return Loans(loans.definition, columns, loans.size)


def silent(_: float) -> None:
    """Ignore the progress."""


@cache
def fit(
    candidate: str, case: str, resampling: Resampling = "none", **values: Any
) -> tuple[Loans, Any, Any]:
    """Return loans, the estimator fitted on them, and its compiled form."""
    definition, rows, due = CASES[case]
    loans = table(definition, rows, seed=1)
    late = labels(loans, 1, due)
    fitted = CANDIDATES[candidate](loans, late, Hyperparameters(values, resampling), silent)
    return loans, fitted, fitted.compile(loans)


def fit_additive(
    case: str, resampling: Resampling = "none", depth: int = 1, monotone: bool = False
) -> tuple[Loans, Any, Scorecard]:
    return fit(
        "additive", case, resampling,
        depth=depth, monotone=monotone, rounds=60, eta=0.2, columns=1.0, min_child_weight=1,
    )  # fmt: skip


def fit_binned(case: str, resampling: Resampling = "none") -> tuple[Loans, Any, Scorecard]:
    return fit("binned", case, resampling, C=1.0, min_bin_size=0.02)


cases = st.sampled_from(sorted(CASES))
resamplings = st.sampled_from(["none", "class-weight", "smote"])
seeds = st.integers(0, 2**32)


# Additive trees as a scorecard


def leaf_sums(booster: xgboost.Booster, matrix: xgboost.DMatrix) -> Numbers:
    """Sum the intercept and the leaves chosen by the booster in double precision."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    start = float(np.float32(learner["learner_model_param"]["base_score"].strip("[]")))
    trees = learner["gradient_booster"]["model"]["trees"]
    values = [np.array(tree["split_conditions"], dtype=np.float32) for tree in trees]
    leaves = booster.predict(matrix, pred_leaf=True).astype(int)
    chosen = np.stack([values[i][leaves[:, i]] for i in range(len(trees))], axis=1)
    return math.log(start / (1 - start)) + np.array(
        [math.fsum(row) for row in chosen.astype(np.float64).tolist()]
    )


@given(cases, resamplings, st.sampled_from([1, 2, 3]), st.booleans(), seeds)
def test_a_compiled_scorecard_equals_the_boosters_leaves(
    case: str, resampling: Resampling, depth: int, monotone: bool, seed: int
) -> None:
    loans, fitted, card = fit_additive(case, resampling, depth, monotone)
    card.check(loans.definition)
    new = table(loans.definition, 200, seed, unseen=True)
    new = at_the_edges(new, card, np.random.default_rng(seed))
    matrix = xgboost.DMatrix(to_single(fitted.encoding.matrix(new)), nthread=1)
    margins = card.margins(new)
    assert np.abs(margins - leaf_sums(fitted.booster, matrix)).max() <= 1e-8
    assert np.abs(margins - fitted.booster.predict(matrix, output_margin=True)).max() <= 2e-5
    assert np.abs(margins - fitted.margins(new)).max() <= 2e-5
    assert margins[:20].tolist() == [card.margin(row) for row in new.rows()[:20]]


def test_deeper_additive_trees_split_twice_on_one_field() -> None:
    # Else the depth is idle, and the property above proves nothing for it.
    _, fitted, _ = fit_additive("other", depth=2)
    leaves = [dump.count("leaf") for dump in fitted.booster.get_dump()]
    assert max(leaves) > 2


def test_smote_gets_no_missing_values() -> None:
    loans, fitted, _ = fit_additive("other", "smote")
    made = [(column.field, column.make, column.fill) for column in fitted.encoding.columns]
    assert ("credit.score", "missing", None) in made
    assert ("empty", "value", 0.0) in made
    assert not np.isnan(fitted.encoding.matrix(loans)).any()


def directed(card: Scorecard, definition: Definition) -> dict[str, list[float]]:
    """Return the points of each field with a direction, from the safer to the riskier end."""
    found = {}
    for each in card.tables:
        field = definition[each.feature]
        if field.riskier is None:
            continue
        if isinstance(each, NumberTable):
            points = list(each.points)
        else:
            by_level = dict(zip(each.levels, each.points, strict=True))
            points = [by_level.get(level, each.unseen) for level in field.levels]
        found[field.name] = points if field.riskier == "higher" else points[::-1]
    return found


@pytest.mark.parametrize("resampling", ["none", "class-weight", "smote"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("case", ["peerloan", "other", "numbers"])
def test_points_never_fall_towards_the_riskier_end(
    case: str, depth: int, resampling: Resampling
) -> None:
    loans, _, card = fit_additive(case, resampling, depth, monotone=True)
    directions = directed(card, loans.definition)
    assert set(directions) == {field.name for field in loans.definition.fields if field.riskier}
    assert all(points == sorted(points) for points in directions.values())
    _, _, free = fit_additive(case, resampling, depth, monotone=False)
    assert any(points != sorted(points) for points in directed(free, loans.definition).values())


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("make", [fit_additive, fit_binned])
def test_points_are_relative_to_the_training_tables_mean(
    case: str, make: Callable[[str], tuple[Loans, Any, Scorecard]]
) -> None:
    loans, _, card = make(case)
    margins, contributions = card.score_many(loans)
    assert np.abs(contributions.mean(axis=0)).max() < 1e-9
    assert margins.mean() == pytest.approx(card.base, abs=1e-8)


def test_a_tree_that_splits_on_two_fields_is_refused() -> None:
    loans, fitted, _ = fit_additive("other")
    matrix = xgboost.DMatrix(to_single(fitted.encoding.matrix(loans)), labels(loans, 1))
    deep = xgboost.train({"max_depth": 2}, matrix, 3)
    with pytest.raises(ValueError, match="splits on two fields is not additive"):
        compile_trees(deep, fitted.encoding, loans)


@pytest.mark.parametrize("candidate", ["additive", "binned"])
def test_a_table_without_a_pattern_compiles_to_points_of_zero(candidate: str) -> None:
    row = ("1+", 1.0, None, None, "web", None, 7.0, "only", "town 1")
    loans = Loans.of(OTHER, [row] * 100)
    late = np.array([0.0, 1.0] * 50)
    values = {"C": 1.0, "min_bin_size": 0.05, "depth": 1, "rounds": 50, "eta": 0.1, "columns": 1.0}
    values |= {"monotone": False, "min_child_weight": 1}
    card = CANDIDATES[candidate](loans, late, Hyperparameters(values), silent).compile(loans)
    assert isinstance(card, Scorecard)
    assert card.base == pytest.approx(0, abs=0.1)  # each round sees half of the loans
    assert set(card.score_many(loans)[1].ravel().tolist()) == {0.0}
    unlike = ("< 1", 2.0, 3.0, "x", None, 4.0, 8.0, "another", "town 2")
    assert card.margin(unlike) == card.base


# Optimal bins as a scorecard


@given(cases, resamplings, seeds)
def test_a_binned_scorecard_equals_the_regression(
    case: str, resampling: Resampling, seed: int
) -> None:
    loans, fitted, card = fit_binned(case, resampling)
    card.check(loans.definition)
    new = table(loans.definition, 200, seed, unseen=True)
    for some in (loans, new, at_the_edges(new, card, np.random.default_rng(seed))):
        assert np.abs(card.margins(some) - fitted.margins(some)).max() <= 1e-8


def test_an_unseen_level_contributes_zero_before_centring() -> None:
    loans, fitted, card = fit_binned("peerloan")
    coefficients = dict(zip(fitted.binnings, fitted.regression.coef_[0], strict=True))
    tables = [each for each in card.tables if isinstance(each, LevelTable)]
    assert len(tables) == 4
    for each in tables:
        texts = loans.texts(each.feature)
        given = [None if code < 0 else texts.levels[code] for code in texts.codes]
        if loans.definition[each.feature].kind == "category":
            binning = fitted.binnings[each.feature]
            assert binning.transform(np.array(["never seen"], dtype=object), metric="woe") == 0
            woe = -binning.transform(
                np.array(given, dtype=object), metric="woe", metric_missing="empirical"
            )
            assert each.unseen == pytest.approx(-coefficients[each.feature] * woe.mean(), abs=1e-8)


@pytest.mark.parametrize("least", [0.02, 0.1, 0.3])
def test_the_least_size_of_a_bin_is_respected(least: float) -> None:
    fitted = fit("binned", "peerloan", C=1.0, min_bin_size=least)[1]
    bins = 0
    for name, binning in fitted.binnings.items():
        built = binning.binning_table.build(add_totals=False)
        counts = built["Count"].to_numpy()[:-2]  # the last two are special and missing values
        assert counts.min() >= math.floor(least * counts.sum()), name
        bins += len(counts)
    coarser = fit("binned", "peerloan", C=1.0, min_bin_size=0.4)[1]
    assert bins > sum(len(binning.splits) + 1 for binning in coarser.binnings.values())


# Calibration inside the tables


@given(
    st.sampled_from(["additive", "binned"]),
    st.sampled_from(["peerloan", "other", "categories"]),
    st.floats(1e-6, 5),
    st.floats(-10, 10),
)
def test_a_rescaled_scorecard_has_the_calibrated_margins(
    candidate: str, case: str, slope: float, intercept: float
) -> None:
    loans, _, card = (fit_additive if candidate == "additive" else fit_binned)(case)
    new = rescaled(card, slope, intercept)
    new.check(loans.definition)
    some = table(loans.definition, 100, 5, unseen=True)
    assert np.abs(new.margins(some) - (slope * card.margins(some) + intercept)).max() <= 1e-8
    assert new.base == pytest.approx(slope * card.base + intercept, abs=1e-9)
    changed, before = new.score_many(some)[1], card.score_many(some)[1]
    assert np.abs(changed - slope * before).max() <= 1e-8


def test_rescaling_by_one_and_zero_returns_the_same_scorecard() -> None:
    for case in ("peerloan", "other"):
        card = fit_additive(case)[2]
        assert rescaled(card, 1.0, 0.0) == card


# Everything else as ONNX

ONNX: dict[str, dict[str, Any]] = {
    "basic": {"min_leaf": 1},
    "boosted": {"depth": 3, "eta": 0.2, "min_child_weight": 1},
    "logistic": {"C": 1.0},
}


@cache
def deployed(candidate: str, case: str, resampling: Resampling) -> tuple[Loans, Any, OnnxModel]:
    loans, fitted, parts = fit(candidate, case, resampling, **ONNX[candidate])
    assert isinstance(parts, OnnxParts)
    return loans, fitted, model_of(parts, loans)


def model_of(parts: OnnxParts, loans: Loans) -> OnnxModel:
    background = loans.take(np.arange(4))
    return OnnxModel(
        parts.graph, parts.encoding, loans.definition, background, "s", PlattCalibration()
    )


def logistic(margins: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-np.clip(margins, -500, 500))))


estimators = st.sampled_from(sorted(ONNX))


@given(estimators, cases, resamplings, seeds)
def test_a_graph_reproduces_the_fitted_estimator(
    candidate: str, case: str, resampling: Resampling, seed: int
) -> None:
    loans, fitted, model = deployed(candidate, case, resampling)
    new = table(loans.definition, 150, seed, unseen=True)
    for some in (loans, new):
        expected = np.clip(logistic(fitted.margins(some)), FLOOR, 1 - FLOOR)
        assert np.abs(logistic(model.margins(some)) - expected).max() <= 1e-6


@given(estimators, cases, resamplings, seeds, st.integers(1, 130))
def test_a_loan_has_the_same_bits_alone_and_in_a_batch(
    candidate: str, case: str, resampling: Resampling, seed: int, rows: int
) -> None:
    loans, _, model = deployed(candidate, case, resampling)
    new = table(loans.definition, max(rows, 8), seed, unseen=True).take(np.arange(rows))
    many = model.margins(new).tolist()
    assert [model.margin(row) for row in new.rows()] == many
    for row, margin in list(zip(new.rows(), many, strict=True))[:2]:
        assert model.score(row)[0] == margin


def test_a_compiled_forest_splits_at_its_thresholds_as_scikit_learn_does() -> None:
    definition = Definition("m", LABEL, (Field("a", "number", "A"),))
    random = np.random.default_rng(3)
    loans = Loans.of(definition, [(value,) for value in random.normal(0, 1e5, 400).tolist()])
    late = (random.random(400) < 0.3).astype(np.float64)
    fitted: Any = CANDIDATES["basic"](loans, late, Hyperparameters({"min_leaf": 1}), silent)
    thresholds = np.unique(
        np.concatenate([tree.tree_.threshold for tree in fitted.forest.estimators_])
    )
    steps = thresholds.astype(np.float32).astype(np.float64)
    beside = np.concatenate(
        [steps, np.nextafter(steps.astype(np.float32), np.float32(np.inf)), thresholds]
    )
    new = Loans.of(definition, [(float(value),) for value in beside])
    expected = logistic(fitted.margins(new))
    model = model_of(fitted.compile(loans), loans)
    assert np.abs(logistic(model.margins(new)) - expected).max() <= 1e-6


def test_compiled_boosted_trees_split_at_their_thresholds_as_xgboost_does() -> None:
    _, fitted, model = deployed("boosted", "numbers", "none")
    thresholds = np.concatenate(
        [
            [float(line.split("<")[1].split("]")[0]) for line in dump.split("\n") if "<" in line]
            for dump in fitted.booster.get_dump()
        ]
    ).astype(np.float32)
    beside = np.concatenate([thresholds, np.nextafter(thresholds, np.float32(-np.inf))])
    rows = [(float(a), float(b)) for a, b in zip(beside, beside[::-1], strict=True)]
    new = Loans.of(NUMBERS, rows)
    assert np.abs(model.margins(new) - fitted.margins(new)).max() <= 1e-5


def test_a_small_probability_keeps_its_digits_in_boosted_trees() -> None:
    # The operator's own logistic would give 1 − p in single precision, from which p is taken.
    loans = table(NUMBERS, 3000, 1)
    late = labels(loans, 1, 40)
    values = {"depth": 2, "eta": 0.3, "min_child_weight": 0}
    fitted = CANDIDATES["boosted"](loans, late, Hyperparameters(values), silent)
    parts = fitted.compile(loans)
    assert isinstance(parts, OnnxParts)
    margins = fitted.margins(loans)
    assert margins.min() < -4
    assert np.abs(model_of(parts, loans).margins(loans) - margins).max() < 1e-5


def test_an_empty_table_has_no_margins() -> None:
    for candidate in ONNX:
        model = deployed(candidate, "other", "none")[2]
        assert model.margins(Loans.of(OTHER, [])).shape == (0,)
    for make in (fit_additive, fit_binned):
        margins, contributions = make("other")[2].score_many(Loans.of(OTHER, []))
        assert margins.shape == (0,)
        assert contributions.shape == (0, len(OTHER.fields))


@pytest.mark.parametrize("candidate", sorted(CANDIDATES))
def test_the_same_table_compiles_to_the_same_bytes(candidate: str) -> None:
    values = ONNX.get(candidate) or {
        "C": 1.0, "min_bin_size": 0.05, "depth": 2, "rounds": 20, "eta": 0.1, "columns": 1.0,
        "monotone": True, "min_child_weight": 1,
    }  # fmt: skip
    loans = table(OTHER, 200, 9)
    one, other = (
        CANDIDATES[candidate](loans, labels(loans, 9), Hyperparameters(values, "smote"), silent)
        for _ in range(2)
    )
    assert one.compile(loans) == other.compile(loans)


def test_progress_rises_to_the_end() -> None:
    for candidate in CANDIDATES:
        told: list[float] = []
        values = {
            "C": 1.0,
            "min_bin_size": 0.05,
            "depth": 1,
            "rounds": 20,
            "eta": 0.1,
            "columns": 1.0,
        }
        values |= {"monotone": False, "min_child_weight": 1, "min_leaf": 5}
        loans = table(OTHER, 200, 9)
        CANDIDATES[candidate](loans, labels(loans, 9), Hyperparameters(values), told.append)
        assert told == sorted(told)
        assert told[-1] == 1.0, candidate


def test_a_table_with_only_rare_levels_can_be_encoded() -> None:
    definition = Definition("m", LABEL, (Field("town", "category", "Town"),))
    loans = Loans.of(definition, [(f"town {i}",) for i in range(60)])
    for ranks, impute in ((True, True), (True, False), (False, True)):
        encoding = fit_encoding(loans, ranks=ranks, impute=impute)
        assert encoding.matrix(loans).shape[1] >= 1
