"""Reasons: their choice, order and sentences; Shapley values of ONNX versions."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
import onnx.helper
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.loan import Definition, Field, Label, Loans, ReasonTemplates, Value
from peerloan.model import (
    MAX_REASONS,
    BatchReasons,
    EncodedColumn,
    Encoding,
    Reasons,
    ReferenceProfile,
)
from peerloan.model.arithmetic import IDENTITY, UNIT, to_unit
from peerloan.model.onnx_graph import OnnxModelError
from peerloan.model.onnx_model import FLOOR, OnnxModel, background_size

LABEL = Label("y", 1, 0)
TEXTS = ReasonTemplates(
    higher="{label}: {value} > {usual}",
    lower="{label}: {value} < {usual}",
    equal="{label}: {value} =",
    level="{label}: {value} not {usual}",
    unseen="{label}: {value} new",
    missing="{label}: none",
)
DEFINITION = Definition(
    "m",
    LABEL,
    (
        Field("amount", "number", "Amount", unit="euros"),
        Field("rate", "number", "Rate", percent=True, missing=True),
        Field("channel", "category", "Channel", levels=("web", "shop", "fair"), missing=True),
        Field("rank", "ordered", "Rank", levels=("low", "mid", "high"), missing=True),
        Field("void", "number", "Void", missing=True),
        Field("gap", "ordered", "Gap", levels=("a", "b"), missing=True),
    ),
    texts=TEXTS,
)
# Usual: 1,000 euros, 10 %, web, mid, nothing, nothing.
ROWS: list[tuple[Value, ...]] = [
    (1000.0, 0.1, "web", "mid", None, None),
    (1000.0, 0.1, "web", "mid", None, None),
    (1000.0, 0.1, "shop", "mid", None, None),
]


def profile_of(loans: Loans) -> ReferenceProfile:
    return ReferenceProfile.of(
        loans, np.array([1.0] + [0.0] * (loans.size - 1)), np.zeros(loans.size)
    )


def reasons_of(definition: Definition) -> Reasons:
    return Reasons(definition, profile_of(Loans.of(definition, ROWS)))


REASONS = reasons_of(
    msgspec.structs.replace(
        DEFINITION,
        fields=tuple(
            msgspec.structs.replace(field, seen=("web", "shop"))
            if field.name == "channel"
            else field
            for field in DEFINITION.fields
        ),
    )
)


@pytest.mark.parametrize(
    ("position", "value", "sentence"),
    [
        (0, 2500.0, "Amount: 2,500 euros > 1,000 euros"),
        (0, 1.5, "Amount: 1.5 euros < 1,000 euros"),
        (0, 1000.0, "Amount: 1,000 euros ="),
        (0, 1000.001, "Amount: 1,000 euros ="),  # not "1,000 is higher than the usual 1,000"
        (0, 999.999, "Amount: 1,000 euros ="),
        (0, -5.0, "Amount: -5 euros < 1,000 euros"),
        (1, 0.1306, "Rate: 13.06 % > 10 %"),
        (1, 0.07, "Rate: 7 % < 10 %"),
        (1, None, "Rate: none"),
        (2, "web", "Channel: web ="),
        (2, "shop", "Channel: shop not web"),
        (2, "fair", "Channel: fair new"),  # listed, but not in the training table
        (2, "moon {usual}", "Channel: moon {usual} new"),
        (2, None, "Channel: none"),
        (3, "high", "Rank: high > mid"),
        (3, "low", "Rank: low < mid"),
        (3, "mid", "Rank: mid ="),
        (3, None, "Rank: none"),
        (4, 3.0, "Void: 3 ="),
        (4, None, "Void: none"),
        (5, "a", "Gap: a ="),
        (5, None, "Gap: none"),
    ],
)
def test_the_sentence_depends_on_the_value(position: int, value: Value, sentence: str) -> None:
    assert REASONS.sentence(position, value) == sentence


def test_the_default_sentences() -> None:
    reasons = reasons_of(msgspec.structs.replace(DEFINITION, texts=ReasonTemplates()))
    assert [
        reasons.sentence(1, 0.2),
        reasons.sentence(1, 0.01),
        reasons.sentence(1, 0.1),
        reasons.sentence(2, "shop"),
        reasons.sentence(2, "moon"),
        reasons.sentence(1, None),
    ] == [
        "Rate: 20 %, higher than the usual 10 %.",
        "Rate: 1 %, lower than the usual 10 %.",
        "Rate: 10 %, as usual; the model estimates more risk there than on average.",
        "Channel: shop; the model estimates more risk there than on average (usual: web).",
        "Channel: moon, which the model has not seen before.",
        "Rate: not given.",
    ]


def test_a_field_can_replace_the_words_of_its_sentences() -> None:
    fields = (
        Field("count", "whole", "Delinquencies", riskier="higher", more="more", less="fewer"),
        Field("grade", "ordered", "Grade", levels=("A", "B", "C"), more="worse", less="better"),
    )
    definition = Definition("m", LABEL, fields)
    reasons = Reasons(definition, profile_of(Loans.of(definition, [(1.0, "B")] * 2)))
    assert reasons.sentence(0, 2.0) == "Delinquencies: 2, more than the usual 1."
    assert reasons.sentence(1, "C") == "Grade: C, worse than the usual B."
    assert reasons.sentence(1, "A") == "Grade: A, better than the usual B."


@pytest.mark.parametrize(("riskier", "safer", "worse"), [("higher", 0, 2), ("lower", 2, 0)])
def test_a_value_on_the_safer_side_is_not_called_higher_or_lower_than_usual(
    riskier: Literal["higher", "lower"], safer: int, worse: int
) -> None:
    levels = ("a", "b", "c")
    fields = (
        Field("n", "number", "N", riskier=riskier),
        Field("o", "ordered", "O", levels=levels, riskier=riskier),
    )
    definition = Definition("m", LABEL, fields)
    reasons = Reasons(definition, profile_of(Loans.of(definition, [(1.0, "b")] * 2)))
    for position, values, usual in ((0, (0.0, 1.0, 2.0), "1"), (1, levels, "b")):
        there = "the model estimates more risk there than on average"
        said = reasons.sentence(position, values[safer])
        assert said.endswith(f"; {there} (usual: {usual}).")
        said = reasons.sentence(position, values[worse])
        assert said.endswith(f"{riskier} than the usual {usual}.")


@pytest.mark.parametrize(("value", "usual", "compares"), [(2.0, 1.0, True), (1.0, 1.0, False)])
def test_a_value_that_is_no_riskier_than_the_usual_one_is_not_compared(
    value: float, usual: float, compares: bool
) -> None:
    definition = Definition("m", LABEL, (Field("n", "number", "N"),))
    profile = profile_of(Loans.of(definition, [(5.0,), (5.0,)]))
    reasons = Reasons(definition, profile, lambda _position, n: usual if n == 5 else value)
    assert ("lower than the usual 5" in reasons.sentence(0, 3.0)) == compares
    assert ("higher than the usual 5" in reasons.sentence(0, 8.0)) == compares
    assert reasons.sentence(0, 3.0).endswith("(usual: 5).") != compares


def test_placeholders_are_filled_once_at_any_place() -> None:
    texts = ReasonTemplates(higher="{value}, {value}! {usual} {label} {usual}", missing="Nothing.")
    field = Field("amount", "number", "{usual} {value}", missing=True)
    definition = Definition("m", LABEL, (field,), texts=texts)
    reasons = Reasons(definition, profile_of(Loans.of(definition, [(1.0,), (1.0,)])))
    assert reasons.sentence(0, 2.0) == "2, 2! 1 {usual} {value} 1"
    assert reasons.sentence(0, None) == "Nothing."


def test_a_loan_has_at_most_four_reasons_largest_first_and_ties_in_the_order_of_the_fields() -> (
    None
):
    values: tuple[Value, ...] = (2000.0, 0.2, "shop", "high", 1.0, "a")
    found = REASONS.of(values, (0.5, 1.0, 0.5, 0.25, 1.0, 0.5))
    assert [reason.feature for reason in found] == ["rate", "void", "amount", "channel"]
    assert [reason.contribution for reason in found] == [1.0, 1.0, 0.5, 0.5]
    assert found[0].value == 0.2
    assert found[0].sentence == "Rate: 20 % > 10 %"


def test_a_feature_that_does_not_raise_the_risk_is_no_reason() -> None:
    values: tuple[Value, ...] = (2000.0, 0.2, "shop", "high", 1.0, "a")
    assert REASONS.of(values, (0.0, -0.0, -1.0, -UNIT, 0.0, -5.0)) == []
    (reason,) = REASONS.of(values, (0.0, -1.0, UNIT, 0.0, 0.0, 0.0))
    assert reason.feature == "channel"


_contributions = st.sampled_from([0.0, -0.0, UNIT, -UNIT, 0.5, -0.5]) | st.floats(-9, 9).map(
    lambda value: float(to_unit(value))
)


@given(st.lists(st.tuples(*[_contributions] * 6), max_size=6))
def test_reasons_of_many_loans_equal_those_of_single_loans(rows: list[tuple[float, ...]]) -> None:
    values: tuple[Value, ...] = (2000.0, 0.2, "shop", "high", 1.0, "a")
    loans = Loans.of(DEFINITION, [values] * len(rows))
    batch = BatchReasons.of(loans, np.array(rows).reshape(len(rows), 6))
    assert batch.positions.shape == (len(rows), MAX_REASONS)
    assert REASONS.of_batch(batch, loans.values_by_field()) == [
        REASONS.of(values, row) for row in rows
    ]
    for row, found, places in zip(rows, batch.positions.tolist(), batch.places, strict=True):
        expected = [DEFINITION.names.index(each.feature) for each in REASONS.of(values, row)]
        assert found == expected + [-1] * (MAX_REASONS - len(expected))
        assert [batch.keys[place].position for place in places if place >= 0] == expected
        raising = [row[i] for i in expected]
        assert raising == sorted(raising, reverse=True)
        assert all(value > 0 for value in raising)
        assert len(raising) == min(MAX_REASONS, sum(value > 0 for value in row))


def test_with_fewer_than_four_fields_there_are_fewer_positions() -> None:
    two = msgspec.structs.replace(DEFINITION, fields=DEFINITION.fields[:2])
    loans = Loans.of(two, [(1.0, 1.0), (1.0, 1.0)])
    batch = BatchReasons.of(loans, np.array([[1.0, -1.0], [np.nan, np.nan]]))
    assert batch.positions.tolist() == [[0, -1], [-1, -1]]


# Shapley values

FOUR = Definition("m", LABEL, tuple(Field(name, "number", name) for name in "abcd"))


def graph(columns: int, pairs: list[tuple[int, int, float]], weights: list[float]) -> bytes:
    """Return an estimator in ONNX: p = sigmoid(weights · x + Σ weight · xᵢ · xⱼ)."""
    make = onnx.helper.make_node
    initial, nodes = [], []

    def constant(name: str, matrix: Any) -> None:
        array = np.asarray(matrix, dtype=np.float32)
        initial.append(
            onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, array.shape, array.ravel())
        )

    constant("w", np.array(weights).reshape(columns, 1))
    nodes.append(make("MatMul", ["x", "w"], ["sum0"]))
    for n, (i, j, weight) in enumerate(pairs):
        left, right = np.zeros((columns, 1)), np.zeros((columns, 1))
        left[i], right[j] = weight, 1
        constant(f"l{n}", left)
        constant(f"r{n}", right)
        nodes += [
            make("MatMul", ["x", f"l{n}"], [f"left{n}"]),
            make("MatMul", ["x", f"r{n}"], [f"right{n}"]),
            make("Mul", [f"left{n}", f"right{n}"], [f"both{n}"]),
            make("Add", [f"sum{n}", f"both{n}"], [f"sum{n + 1}"]),
        ]
    nodes.append(make("Sigmoid", [f"sum{len(pairs)}"], ["probabilities"]))
    floats = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", floats, [None, columns])],
        [onnx.helper.make_tensor_value_info("probabilities", floats, [None, 1])],
        initial,
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def values_encoding(definition: Definition) -> Encoding:
    return Encoding(tuple(EncodedColumn(name, "value", fill=0.0) for name in definition.names))


def normal_rows(size: int, fields: int, seed: int) -> list[tuple[Value, ...]]:
    return [tuple(row) for row in np.random.default_rng(seed).normal(0, 1, (size, fields)).tolist()]


@cache
def small_model(seed: str = "s") -> OnnxModel:
    """Return a model in which b and c interact, and d has no effect."""
    return OnnxModel(
        graph(4, [(1, 2, 1.5)], [1.0, 0.5, -0.5, 0.0]),
        values_encoding(FOUR),
        FOUR,
        Loans.of(FOUR, normal_rows(background_size(4), 4, seed=1)),
        seed,
        IDENTITY,
    )


def logistic(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def exact_shapley(model: OnnxModel, own: tuple[Value, ...], background: Loans) -> list[float]:
    """Compute Shapley values of the probability over all coalitions, by their definition."""
    fields = range(len(own))
    worth = {}
    for size in range(len(own) + 1):
        for coalition in itertools.combinations(fields, size):
            mixed = [
                tuple(own[i] if i in coalition else row[i] for i in fields)
                for row in background.rows()
            ]
            margins = model.margins(Loans.of(background.definition, mixed))
            worth[frozenset(coalition)] = float(np.mean([logistic(m) for m in margins.tolist()]))
    shares = []
    for i in fields:
        share = 0.0
        for without, value in worth.items():
            if i not in without:
                others = len(own) - len(without) - 1
                weight = math.factorial(len(without)) * math.factorial(others)
                share += weight * (worth[without | {i}] - value)
        shares.append(share / math.factorial(len(own)))
    return shares


def test_contributions_are_near_the_exact_shapley_values() -> None:
    model, background = small_model(), Loans.of(FOUR, normal_rows(background_size(4), 4, seed=1))
    errors = []
    for own in normal_rows(25, 4, seed=2):
        margin, contributions = model.score(own)
        exact = exact_shapley(model, own, background)
        moved = logistic(margin) - logistic(model.base)
        assert sum(exact) == pytest.approx(moved, abs=1e-6)
        found = np.array(contributions) * moved / (margin - model.base)
        errors += np.abs(found - exact).tolist()
    # With 64 orders for a loan, the standard error is about 0.01.
    assert np.mean(errors) < 0.01
    assert max(errors) < 0.06


def test_contributions_of_an_additive_probability_are_exact() -> None:
    """Without interactions, the order in which features are replaced does not matter."""
    two = Definition("m", LABEL, tuple(Field(name, "number", name) for name in "ab"))
    background = Loans.of(two, normal_rows(32, 2, seed=1))
    model = OnnxModel(
        graph(2, [], [0.001, -0.002]), values_encoding(two), two, background, "s", IDENTITY
    )
    for own in normal_rows(10, 2, seed=3):
        margin, contributions = model.score(own)
        moved = logistic(margin) - logistic(model.base)
        found = np.array(contributions) * moved / (margin - model.base)
        assert found == pytest.approx(exact_shapley(model, own, background), abs=1e-6)


_number = st.floats(-3, 3) | st.sampled_from([0.0, -0.0, 1e30, -1e30, 5e-324])


@given(st.tuples(_number, _number, _number, _number))
def test_base_and_contributions_are_the_margin_exactly(own: tuple[float, ...]) -> None:
    model = small_model()
    margin, contributions = model.score(own)
    assert margin == model.margin(own) == model.margins(Loans.of(FOUR, [own]))[0]
    assert math.isfinite(margin)
    assert abs(margin) <= math.log(1 / FLOOR)
    for order in itertools.permutations([model.base, *contributions]):
        assert sum(order) == margin
    assert all((part / UNIT).is_integer() for part in (model.base, margin, *contributions))


def test_contributions_are_exact_if_large_shares_almost_cancel_out() -> None:
    """The probability is almost 0 for loan and background, and almost 1 half-way between."""
    background = Loans.of(FOUR, [(0.0, 0.0, 0.0, 1.0)] * 24)
    made = graph(4, [(0, 1, -90.0), (1, 2, 5.0)], [40.0, 40.0, -45.0, -20.0])
    model = OnnxModel(made, values_encoding(FOUR), FOUR, background, "s", IDENTITY)
    random = np.random.default_rng(7)
    for _ in range(50):
        a, b = random.normal(1, 0.1, 2).tolist()
        own = (a, b, float(random.choice([0.0, 0.5, 1.0])), 1.0)
        margin, contributions = model.score(own)
        for order in itertools.permutations([model.base, *contributions]):
            assert sum(order) == margin
        assert contributions[3] == 0.0


def test_a_feature_that_the_model_ignores_contributes_nothing() -> None:
    for own in normal_rows(25, 4, seed=4):
        assert small_model().score(own)[1][3] == 0.0


def test_a_model_that_ignores_every_feature_gives_no_reasons() -> None:
    for size in (4, 5, 22, 32):
        background = Loans.of(FOUR, normal_rows(size, 4, seed=1))
        constant = graph(4, [], [0.0] * 4)
        model = OnnxModel(constant, values_encoding(FOUR), FOUR, background, "s", IDENTITY)
        assert model.score((1.0, 2.0, 3.0, 4.0)) == (model.base, (0.0, 0.0, 0.0, 0.0))


def test_reasons_depend_only_on_the_loan_and_the_bundle() -> None:
    rows = normal_rows(6, 4, seed=5)
    model = small_model()
    forward = [model.score(row) for row in rows]
    assert [model.score(row) for row in reversed(rows)] == forward[::-1]
    assert [small_model.__wrapped__().score(row) for row in rows] == forward
    other = [small_model("another bundle").score(row) for row in rows]
    assert [margin for margin, _ in other] == [margin for margin, _ in forward]
    assert [points for _, points in other] != [points for _, points in forward]


def test_another_process_gives_the_same_contributions() -> None:
    code = (
        "import test_reasons as t\n"
        "print([t.small_model().score(row) for row in t.normal_rows(5, 4, seed=6)])"
    )
    expected = str([small_model().score(row) for row in normal_rows(5, 4, seed=6)])
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == expected


def test_all_of_a_fields_columns_change_together() -> None:
    """A category's one-hot columns are one feature: its contribution is the full difference."""
    definition = Definition(
        "m", LABEL, (Field("c", "category", "C", missing=True), Field("n", "number", "N"))
    )
    encoding = Encoding(
        (
            EncodedColumn("c", "level", "x"),
            EncodedColumn("n", "value"),
            EncodedColumn("c", "level", "y"),
            EncodedColumn("c", "missing"),
        )
    )
    background = Loans.of(definition, [("x", 0.0)] * 4)
    model = OnnxModel(
        graph(4, [], [1.0, 0.0, 2.0, -1.0]), encoding, definition, background, "s", IDENTITY
    )
    for value, margin in (("x", 1.0), ("y", 2.0), (None, -1.0), ("unseen", 0.0)):
        found, contributions = model.score((value, 5.0))
        assert found == pytest.approx(margin, abs=1e-6)
        assert contributions == (found - model.base, 0.0)


def test_a_single_field_contributes_the_full_difference() -> None:
    one = Definition("m", LABEL, (Field("a", "number", "A"),))
    background = Loans.of(one, [(0.0,), (1.0,), (-1.0,), (0.5,)])
    model = OnnxModel(graph(1, [], [1.0]), values_encoding(one), one, background, "s", IDENTITY)
    margin, contributions = model.score((2.0,))
    assert margin == pytest.approx(2.0, abs=1e-6)
    assert contributions == (margin - model.base,)


@pytest.mark.parametrize(
    ("fields", "rows"), [(0, 32), (1, 32), (2, 32), (10, 32), (11, 32), (12, 29), (80, 4), (500, 4)]
)
def test_more_fields_mean_a_smaller_background(fields: int, rows: int) -> None:
    assert background_size(fields) == rows


def test_invalid_models_are_refused() -> None:
    background = Loans.of(FOUR, normal_rows(4, 4, seed=1))
    encoding = values_encoding(FOUR)
    good = graph(4, [], [1.0] * 4)
    for bad in (b"", b"not a graph", good[: len(good) // 2]):
        with pytest.raises(OnnxModelError, match=r"model\.onnx: "):
            OnnxModel(bad, encoding, FOUR, background, "s", IDENTITY)
    with pytest.raises(OnnxModelError, match=r"background\.json: expected at least one loan"):
        OnnxModel(good, encoding, FOUR, Loans.of(FOUR, []), "s", IDENTITY)
    unknown_field = Encoding((EncodedColumn("z", "value"),))
    with pytest.raises(ValueError, match="expected fields of the definition, given 'z'"):
        OnnxModel(good, unknown_field, FOUR, background, "s", IDENTITY)
    with pytest.raises(
        ValueError, match="expected value or missing for a field of the kind number, given level"
    ):
        OnnxModel(good, Encoding((EncodedColumn("a", "level"),)), FOUR, background, "s", IDENTITY)
