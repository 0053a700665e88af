"""Compiled estimators decide as the fitted ones: at every edge, for every kind of value."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peerloan.loan import Definition, Field, Label, Loans, Value, default_definition
from peerloan.model import Scorecard
from peerloan.model.encoding import to_single
from peerloan.model.onnx_model import FLOOR, OnnxModel
from peerloan.training.candidates import Forest, Stumps
from peerloan.training.compiling import compile_forest, compile_stumps, exact_edge, floor_single

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
def test_a_double_is_below_the_edge_exactly_where_its_single_is_below_the_threshold(
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

OTHER = Definition(
    "other",
    Label("outcome", "bad", "good"),
    (
        Field("size.of it", "ordered", "Size", levels=("< 1", "1+", "10 %"), missing=True),
        Field("amount", "number", "Amount"),
        Field("empty", "number", "Never given", missing=True),
        Field("no text", "category", "Never given", missing=True),
        Field("channel", "category", "Channel", levels=("web", "shop"), missing=True),
        Field("score", "number", "Score", missing=True),
        Field("same", "whole", "Always the same"),
        Field("town", "category", "Town"),
    ),
)
DEFINITIONS = {"other": OTHER, "peerloan": default_definition()}


def column(field: Field, rows: int, random: np.random.Generator, unseen: bool) -> list[Value]:
    values: list[Value]
    if field.name in ("empty", "no text"):
        # Missing throughout the training table, but not for ever.
        values = [None] * rows
        if unseen:
            values = [*values[: rows // 2], *([1.5 if field.is_number else "x"] * rows)][:rows]
    elif field.name == "same":
        values = [7.0] * rows
    elif field.is_number:
        scale = float(random.choice([1e-3, 1.0, 1e4, 1e9]))
        numbers = random.lognormal(0, 1, rows) * scale
        kinds = random.random(rows)
        numbers = np.where(kinds < 0.2, np.round(numbers), numbers)
        if field.name in ("amount", "score"):  # no range: negative, tiny and huge too
            numbers = np.where(kinds > 0.7, -numbers, numbers)
            strange = [0.0, -0.0, 5e-324, 1e-45, -1e-40, 3e38, 1e39, -1e300]
            numbers[: len(strange)] = strange[:rows]
        values = (np.round(numbers) if field.kind == "whole" else numbers).tolist()
        if field.max == 1:
            values = (numbers / numbers.max()).tolist()
    else:
        levels = list(field.levels) or [f"town {i}" for i in range(150)]
        if unseen and field.kind == "category":
            levels += ["never seen", "🏰"]
        values = [levels[i] for i in random.integers(0, len(levels), rows)]
    if field.missing:
        gone = random.random(rows) < 0.15
        values = [None if miss else value for value, miss in zip(values, gone, strict=True)]
    return values


def table(definition: Definition, rows: int, seed: int, unseen: bool = False) -> Loans:
    random = np.random.default_rng(seed)
    columns = [column(field, rows, random, unseen) for field in definition.fields]
    return Loans.of(definition, list(zip(*columns, strict=True)))


def labels(loans: Loans, seed: int) -> Any:
    """Late more often where the first number is high or the last category's code is odd."""
    random = np.random.default_rng(seed + 1)
    definition = loans.definition
    number = loans.numbers(next(f.name for f in definition.fields if f.is_number))
    codes = loans.texts(next(f.name for f in definition.fields[::-1] if not f.is_number)).codes
    odds = -1 + 2 * (number > np.median(number)) + (codes % 2) + random.normal(0, 1, loans.size)
    late = (odds > 0.5).astype(np.float64)
    late[:20], late[20:40] = 0, 1
    return late


def at_the_edges(loans: Loans, card: Scorecard, random: np.random.Generator) -> Loans:
    """The loans, half of whose numbers now lie on the scorecard's edges or right beside them."""
    columns = dict(loans.columns)
    for scorecard_table in card.tables:
        edges = np.array(getattr(scorecard_table, "edges", ()))
        if len(edges):
            singled = edges.astype(np.float32).astype(np.float64)
            up, down = np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)
            beside = np.concatenate([edges, singled, up, down])
            values = loans.numbers(scorecard_table.feature).copy()
            chosen = random.random(loans.size) < 0.5
            values[chosen] = random.choice(beside, int(chosen.sum()))
            columns[scorecard_table.feature] = values
    return Loans(loans.definition, columns, loans.size)


def silent(_: float) -> None:
    """No progress is shown."""


@cache
def stumps(name: str, seed: int) -> tuple[Loans, Stumps, Scorecard]:
    loans = table(DEFINITIONS[name], 300, seed)
    fitted = Stumps.fit(loans, labels(loans, seed), silent)
    return loans, fitted, fitted.compile(loans)


def leaf_sums(booster: xgboost.Booster, matrix: xgboost.DMatrix) -> Any:
    """The intercept and the leaves that the booster itself chose, summed in double precision."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    start = float(np.float32(learner["learner_model_param"]["base_score"].strip("[]")))
    trees = learner["gradient_booster"]["model"]["trees"]
    values = [np.array(tree["split_conditions"], dtype=np.float32) for tree in trees]
    leaves = booster.predict(matrix, pred_leaf=True).astype(int)
    chosen = np.stack([values[i][leaves[:, i]] for i in range(len(trees))], axis=1)
    return math.log(start / (1 - start)) + np.array(
        [math.fsum(row) for row in chosen.astype(np.float64).tolist()]
    )


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(DEFINITIONS)), st.integers(0, 1), st.integers(0, 2**32))
def test_a_compiled_scorecard_equals_the_boosters_leaves(name: str, seed: int, other: int) -> None:
    _, fitted, card = stumps(name, seed)
    card.check(DEFINITIONS[name])
    random = np.random.default_rng(other)
    new = at_the_edges(table(DEFINITIONS[name], 200, other, unseen=True), card, random)
    matrix = xgboost.DMatrix(to_single(fitted.encoding.matrix(new)), nthread=1)
    margins = card.margins(new)
    assert np.abs(margins - leaf_sums(fitted.booster, matrix)).max() <= 1e-8
    assert np.abs(margins - fitted.booster.predict(matrix, output_margin=True)).max() <= 2e-5
    p = 1 / (1 + np.exp(-margins))
    assert np.abs(fitted.predict(new) - p).max() <= 1e-5


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_points_are_relative_to_the_training_tables_mean(name: str) -> None:
    loans, _, card = stumps(name, 0)
    margins, contributions = card.score_many(loans)
    assert np.abs(contributions.mean(axis=0)).max() < 1e-9
    assert margins.mean() == pytest.approx(card.base, abs=1e-8)


def test_a_booster_of_depth_two_is_refused() -> None:
    loans = table(OTHER, 300, 0)
    fitted = Stumps.fit(loans, labels(loans, 0), silent)
    matrix = xgboost.DMatrix(to_single(fitted.encoding.matrix(loans)), labels(loans, 0))
    deep = xgboost.train({"max_depth": 2}, matrix, 3)
    with pytest.raises(ValueError, match="depth 2 or more is not additive"):
        compile_stumps(deep, fitted.encoding, loans)


def test_a_table_without_a_pattern_compiles_to_points_of_zero() -> None:
    loans = Loans.of(OTHER, [("1+", 1.0, None, None, "web", None, 7.0, "town 1")] * 100)
    late = np.array([0.0, 1.0] * 50)
    card = Stumps.fit(loans, late, silent).compile(loans)
    assert card.base == pytest.approx(0, abs=0.1)  # each round sees half of the loans
    assert set(card.score_many(loans)[1].ravel().tolist()) == {0.0}
    unlike = ("< 1", 2.0, 3.0, "x", None, 4.0, 8.0, "town 2")
    assert card.margin(unlike) == card.base


@cache
def forest(name: str, seed: int) -> tuple[Loans, Forest, OnnxModel]:
    loans = table(DEFINITIONS[name], 300, seed)
    fitted = Forest.fit(loans, labels(loans, seed), silent)
    parts = fitted.compile(loans)
    background = loans.take(np.arange(8))
    return loans, fitted, OnnxModel(parts.graph, parts.encoding, loans.definition, background, "s")


def logistic(margins: Any) -> Any:
    return 1 / (1 + np.exp(-margins))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(DEFINITIONS)), st.integers(0, 1), st.integers(0, 2**32))
def test_a_forest_in_onnx_reproduces_scikit_learn(name: str, seed: int, other: int) -> None:
    loans, fitted, model = forest(name, seed)
    new = table(DEFINITIONS[name], 150, other, unseen=True)
    for some in (loans, new):
        expected = np.clip(fitted.predict(some), FLOOR, 1 - FLOOR)
        assert np.abs(logistic(model.margins(some)) - expected).max() <= 1e-6


def test_a_forest_splits_on_its_thresholds_as_scikit_learn_does() -> None:
    definition = Definition("m", Label("y", 1, 0), (Field("a", "number", "A"),))
    random = np.random.default_rng(3)
    loans = Loans.of(definition, [(value,) for value in random.normal(0, 1e5, 400).tolist()])
    fitted = Forest.fit(loans, (random.random(400) < 0.3).astype(float), silent)
    thresholds = np.unique(
        np.concatenate([tree.tree_.threshold.copy() for tree in fitted.forest.estimators_])
    )
    steps = thresholds.astype(np.float32).astype(np.float64)
    beside = np.concatenate(
        [steps, np.nextafter(steps.astype(np.float32), np.float32(np.inf)), thresholds]
    )
    new = Loans.of(definition, [(float(value),) for value in beside])
    before = fitted.predict(new)
    parts = fitted.compile(loans)
    # Storing the thresholds in single precision moved no split of the forest itself either.
    assert (fitted.predict(new) == before).all()
    model = OnnxModel(parts.graph, parts.encoding, definition, loans.take(np.arange(4)), "")
    assert np.abs(logistic(model.margins(new)) - np.clip(before, FLOOR, 1 - FLOOR)).max() <= 1e-6


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(DEFINITIONS)), st.integers(0, 2**32), st.integers(1, 130))
def test_one_loan_and_many_have_the_same_margin_to_the_bit(
    name: str, other: int, rows: int
) -> None:
    _, _, model = forest(name, 0)
    new = table(DEFINITIONS[name], max(rows, 8), other, unseen=True).take(np.arange(rows))
    many = model.margins(new).tolist()
    assert [model.margin(row) for row in new.rows()] == many
    for row, margin in list(zip(new.rows(), many, strict=True))[:2]:
        assert model.score(row)[0] == margin


def test_no_loans_have_no_margins() -> None:
    for name in DEFINITIONS:
        assert forest(name, 0)[2].margins(Loans.of(DEFINITIONS[name], [])).shape == (0,)
        margins, contributions = stumps(name, 0)[2].score_many(Loans.of(DEFINITIONS[name], []))
        assert margins.shape == (0,)
        assert contributions.shape == (0, len(DEFINITIONS[name].fields))


def test_the_onnx_graph_is_the_same_for_the_same_forest() -> None:
    _, fitted, _ = forest("other", 0)
    columns = len(fitted.encoding.columns)
    assert compile_forest(fitted.forest, columns) == compile_forest(fitted.forest, columns)
