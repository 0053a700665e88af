"""Comparing two versions: figures by hand, and who is decided differently."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from peerloan.loan import Definition, Loans, parse_definition
from peerloan.model import NumberTable, Policy, ReferenceProfile, Scorecard
from peerloan.model.arithmetic import to_unit
from peerloan.registry import Bundle, TrainedOn, ValidationFigures, draft
from peerloan.stats.arrays import Numbers
from peerloan.training.comparison import Comparison, compare

DEFINITION = parse_definition(
    """
model = "cars"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[[field]]
name = "age"
kind = "number"
label = "Age"
""",
    "cars.toml",
)


def bundle(name: str, points: tuple[float, ...], threshold: float = 0.5) -> Bundle:
    """A version with a step of one point at 1, 2, … and nothing else."""
    edges = tuple(float(each) for each in range(1, len(points)))
    table = NumberTable("age", edges, tuple(float(to_unit(point)) for point in points), 0.0)
    sample = loans(DEFINITION, np.arange(5.0))
    made = draft(
        candidate="additive",
        definition=DEFINITION,
        estimator=Scorecard(0.0, (table,)),
        policy=Policy.at(threshold, "cost", 1),
        profile=ReferenceProfile.of(sample, np.array([0.0, 1, 0, 1, 0]), np.full(5, 0.5)),
        trained_on=TrainedOn("cars.csv", "0" * 64, 5, 2, False),
        validation=ValidationFigures({"auc": 0.5}, {}, (), ()),
        libraries={},
    )
    return made.named(name, "2026-01-01T00:00:00Z")[1]


def loans(definition: Definition, values: Numbers) -> Loans:
    return Loans(definition, {"age": values}, len(values))


VALUES = np.array([0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 2.5, 3.5])
LATE = np.array([0.0, 1, 0, 0, 1, 0, 1, 1])


@pytest.fixture(scope="module")
def found() -> Comparison:
    a = bundle("v1", (-3.0, -1.0, 1.0, 3.0))
    b = bundle("v2", (3.0, -3.0, -1.0, 1.0), threshold=0.2)
    return compare(a, b, loans(DEFINITION, VALUES), loans(DEFINITION, VALUES), LATE, samples=200)


def test_figures_are_those_by_hand(found: Comparison) -> None:
    # Of 16 pairs A has right: 0.5 of the first late loan's, 3.5 of each at 2.5, and 4.
    assert found.a.auc == (0.5 + 3.5 + 3.5 + 4) / 16
    assert found.a.auc == roc_auc_score(LATE, VALUES)
    p = 1 / (1 + np.exp(-np.array([-3.0, -3, -1, -1, 1, 1, 1, 3])))
    assert found.a.brier == pytest.approx(np.mean((p - LATE) ** 2))
    assert found.a.expected == pytest.approx(p.mean())
    assert (found.a.flagged, found.a.recall) == (4 / 8, 3 / 4)
    verdict = found.b_against_a
    assert (verdict.loans, verdict.late) == (8, 4)
    assert verdict.auc[:2] == (found.a.auc, found.b.auc)
    assert verdict.brier[:2] == pytest.approx((found.a.brier, found.b.brier))
    assert verdict.auc.difference.value == found.b.auc - found.a.auc


def test_reclassified_loans_are_counted_with_their_late_rates(found: Comparison) -> None:
    (neither, only_b), (only_a, both) = found.decided
    assert neither is not None
    assert (neither.loans, neither.late) == (2, 0)  # 1.5: A −1, B −3
    assert only_b is not None
    assert (only_b.loans, only_b.late) == (2, 1)  # 0.5: A −3, B 3
    assert only_a is None
    assert both is not None
    assert (both.loans, both.late, both.rate) == (4, 3, 0.75)


def test_bands_move(found: Comparison) -> None:
    # A's bands begin at 0.25, 0.5, 0.75: log-odds −1.1, 0, 1.1; B's at 0.1, 0.2, 0.4: −2.2, −1.4,
    # −0.4.
    assert found.moved == ((0, 0, 0, 2), (2, 0, 0, 0), (0, 0, 3, 0), (0, 0, 0, 1))
    assert found.to_json()["bands"]["low"] == {"low": 0, "medium": 0, "high": 0, "very high": 2}


def test_a_version_against_itself_shows_no_difference() -> None:
    a = bundle("v1", (-3.0, -1.0, 1.0, 3.0))
    table = loans(DEFINITION, VALUES)
    found = compare(a, a, table, table, LATE, samples=50)
    assert found.b_against_a.auc.difference == (0, 0, 0)
    assert found.b_against_a.auc_above == 0.5
    assert found.b_against_a.verdict == "no difference"
    assert np.array(found.moved).trace() == 8


@pytest.mark.parametrize("better", ["A", "B"])
def test_the_better_one_is_named(better: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, 2_000).astype(np.float64) + 0.5
    late = (rng.random(2_000) < values / 6).astype(float)
    good, bad = bundle("good", (-2.0, -1.0, 0.0, 1.0)), bundle("bad", (0.0, 0.0, 0.0, 0.5))
    table = loans(DEFINITION, values)
    pair = (good, bad) if better == "A" else (bad, good)
    found = compare(*pair, table, table, late, samples=100)
    assert found.b_against_a.verdict == ("better" if better == "B" else "worse")
    assert found.to_json()["verdict"] == found.b_against_a.verdict
    assert found.b_against_a.auc_above == (better == "B")


def test_it_is_plain_data_and_the_same_each_time(found: Comparison) -> None:
    as_json = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert as_json["a"]["version"] == "v1"
    assert list(as_json) == [
        *("loans", "late", "verdict", "a", "b", "auc_difference", "decisions", "bands"),
    ]
    assert list(as_json["auc_difference"]) == ["value", "interval", "b_better", "samples"]
    assert as_json["auc_difference"]["samples"] == 200
    assert [(each["a"], each["b"], each["loans"]) for each in as_json["decisions"]] == [
        (False, False, 2),
        (False, True, 2),
        (True, False, 0),
        (True, True, 4),
    ]
    a, b = bundle("v1", (-3.0, -1.0, 1.0, 3.0)), bundle("v2", (3.0, -3.0, -1.0, 1.0), 0.2)
    table = loans(DEFINITION, VALUES)
    assert compare(a, b, table, table, LATE, samples=200) == found


def test_what_cant_be_compared_is_refused() -> None:
    a, table = bundle("v1", (-1.0, 1.0)), loans(DEFINITION, VALUES)
    with pytest.raises(ValueError, match="given 0 late of 8"):
        compare(a, a, table, table, np.zeros(8))
    with pytest.raises(ValueError, match="can't be compared"):
        compare(a, a, table, loans(DEFINITION, VALUES[:3]), LATE)
