"""Comparison of two versions: figures computed by hand, and loans with another decision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from helpers.drafts import age_draft, age_loans
from peerloan.model import Policy
from peerloan.registry import Bundle
from peerloan.training.comparison import Comparison, compare


def bundle(name: str, log_odds: tuple[float, ...], threshold: float = 0.5) -> Bundle:
    made = age_draft(log_odds, Policy.at(threshold, "cost", 1))
    return made.named(name, "2026-01-01T00:00:00Z")[1]


VALUES = np.array([0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 2.5, 3.5])
LATE = np.array([0.0, 1, 0, 0, 1, 0, 1, 1])


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    a = bundle("v1", (-3.0, -1.0, 1.0, 3.0))
    b = bundle("v2", (3.0, -3.0, -1.0, 1.0), threshold=0.2)
    return compare(a, b, age_loans(VALUES), age_loans(VALUES), LATE, samples=200)


def test_figures_equal_those_computed_by_hand(comparison: Comparison) -> None:
    # A ranks 11.5 of 16 pairs right: 0.5 with the first late loan, 3.5 with each one at 2.5, and
    # 4 with the last one.
    assert comparison.a.auc == (0.5 + 3.5 + 3.5 + 4) / 16
    assert comparison.a.auc == roc_auc_score(LATE, VALUES)
    p = 1 / (1 + np.exp(-np.array([-3.0, -3, -1, -1, 1, 1, 1, 3])))
    assert comparison.a.brier == pytest.approx(np.mean((p - LATE) ** 2))
    assert comparison.a.expected == pytest.approx(p.mean())
    assert (comparison.a.flagged, comparison.a.recall) == (4 / 8, 3 / 4)
    verdict = comparison.b_against_a
    assert (verdict.loans, verdict.late) == (8, 4)
    assert verdict.auc[:2] == (comparison.a.auc, comparison.b.auc)
    assert verdict.brier[:2] == pytest.approx((comparison.a.brier, comparison.b.brier))
    assert verdict.auc.difference.value == comparison.b.auc - comparison.a.auc


def test_reclassified_loans_are_counted_with_their_late_rates(comparison: Comparison) -> None:
    (neither, only_b), (only_a, both) = comparison.decisions
    assert neither is not None
    assert (neither.loans, neither.late) == (2, 0)  # 1.5: A −1, B −3
    assert only_b is not None
    assert (only_b.loans, only_b.late) == (2, 1)  # 0.5: A −3, B 3
    assert only_a is None
    assert both is not None
    assert (both.loans, both.late, both.rate) == (4, 3, 0.75)


def test_loans_are_counted_by_the_bands_of_both_versions(comparison: Comparison) -> None:
    # A's bands begin at 0.25, 0.5, 0.75: log-odds −1.1, 0, 1.1; B's at 0.1, 0.2, 0.4: −2.2, −1.4,
    # −0.4.
    assert comparison.band_moves == ((0, 0, 0, 2), (2, 0, 0, 0), (0, 0, 3, 0), (0, 0, 0, 1))
    assert comparison.to_json()["bands"]["low"] == {
        "low": 0,
        "medium": 0,
        "high": 0,
        "very high": 2,
    }


def test_a_version_against_itself_shows_no_difference() -> None:
    a = bundle("v1", (-3.0, -1.0, 1.0, 3.0))
    table = age_loans(VALUES)
    comparison = compare(a, a, table, table, LATE, samples=50)
    assert comparison.b_against_a.auc.difference == (0, 0, 0)
    assert comparison.b_against_a.auc_above == 0.5
    assert comparison.b_against_a.verdict == "no difference"
    assert np.array(comparison.band_moves).trace() == 8


@pytest.mark.parametrize("better", ["A", "B"])
def test_the_verdict_is_on_b(better: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, 2_000).astype(np.float64) + 0.5
    late = (rng.random(2_000) < values / 6).astype(float)
    good, bad = bundle("good", (-2.0, -1.0, 0.0, 1.0)), bundle("bad", (0.0, 0.0, 0.0, 0.5))
    table = age_loans(values)
    pair = (good, bad) if better == "A" else (bad, good)
    comparison = compare(*pair, table, table, late, samples=100)
    assert comparison.b_against_a.verdict == ("better" if better == "B" else "worse")
    assert comparison.to_json()["verdict"] == comparison.b_against_a.verdict
    assert comparison.b_against_a.auc_above == (better == "B")


def test_a_comparison_converts_to_json_and_is_deterministic(comparison: Comparison) -> None:
    as_json = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert as_json["a"]["version"] == "v1"
    assert list(as_json) == [
        *("loans", "late", "verdict", "a", "b", "auc_difference", "decisions", "bands"),
    ]
    assert list(as_json["auc_difference"]) == ["value", "interval", "b_better", "samples"]
    assert as_json["auc_difference"]["samples"] == 200
    assert [(row["a"], row["b"], row["loans"]) for row in as_json["decisions"]] == [
        (False, False, 2),
        (False, True, 2),
        (True, False, 0),
        (True, True, 4),
    ]
    a, b = bundle("v1", (-3.0, -1.0, 1.0, 3.0)), bundle("v2", (3.0, -3.0, -1.0, 1.0), 0.2)
    table = age_loans(VALUES)
    assert compare(a, b, table, table, LATE, samples=200) == comparison


def test_loans_of_one_outcome_or_of_different_sizes_are_refused() -> None:
    a, table = bundle("v1", (-1.0, 1.0)), age_loans(VALUES)
    with pytest.raises(ValueError, match="given 0 late of 8"):
        compare(a, a, table, table, np.zeros(8))
    with pytest.raises(ValueError, match="can't be compared"):
        compare(a, a, table, age_loans(VALUES[:3]), LATE)
