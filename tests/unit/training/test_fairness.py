"""Fairness: rates computed by hand, and the four-fifths rule on loans that are not flagged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peerloan.reports.report_json import Fairness, GroupFairness
from peerloan.stats.intervals import wilson
from peerloan.training.fairness import check_fairness


def book(*groups: tuple[str | None, int, int, int, int]) -> Fairness:
    """Check groups of (name, late flagged, late, on time flagged, on time)."""
    values: list[str | None] = []
    flagged: list[bool] = []
    late: list[float] = []
    for name, late_yes, bad, good_yes, good in groups:
        values += [name] * (bad + good)
        flagged += [True] * late_yes + [False] * (bad - late_yes)
        flagged += [True] * good_yes + [False] * (good - good_yes)
        late += [1.0] * bad + [0.0] * good
    # The order of the loans does not matter.
    order = np.random.default_rng(0).permutation(len(values))
    return check_fairness(
        "town", [values[i] for i in order], np.array(flagged)[order], np.array(late)[order]
    )


def group(fairness: Fairness, name: str) -> GroupFairness:
    return next(each for each in fairness.groups if each.name == name)


def test_rates_and_ratio_equal_those_computed_by_hand() -> None:
    fairness = book(("A", 10, 20, 10, 180), ("B", 30, 40, 50, 60))
    a, b = group(fairness, "A"), group(fairness, "B")
    assert [each.name for each in fairness.groups] == ["A", "B"]
    assert (a.loans, a.late, a.flagged.share) == (200, 20, 0.1)
    assert (b.loans, b.late, b.flagged.share) == (100, 40, 0.8)
    assert a.true_positive is not None
    assert a.false_positive is not None
    assert (a.true_positive.share, a.false_positive.share) == (10 / 20, 10 / 180)
    assert (a.true_positive.low, a.true_positive.high) == wilson(10, 20)
    assert (a.flagged.low, a.flagged.high) == wilson(20, 200)
    # Not being flagged is the favourable outcome: 0.2 of B against 0.9 of A.
    assert fairness.favoured == "A"
    assert a.ratio == 1
    assert b.ratio == pytest.approx(0.2 / 0.9)
    assert "below four fifths" in fairness.finding[0]
    assert "B (0.22)" in fairness.finding[0]


def test_rates_are_reported_if_the_ratio_hides_their_difference() -> None:
    fairness = book(("A", 1, 20, 9, 980), ("B", 5, 20, 95, 980))
    assert "no group falls below four fifths" in fairness.finding[0]
    assert "the lowest ratio is 0.91" in fairness.finding[0]
    assert "B is flagged most often, 10.0 % of its loans against 1.00 % of A" in fairness.finding[1]
    assert "of loans on time, 9.69 % in B are flagged and 0.92 % in A" in fairness.finding[2]


def test_equal_groups_have_a_ratio_of_one() -> None:
    fairness = book(("A", 5, 20, 10, 180), ("B", 5, 20, 10, 180))
    assert len(fairness.finding) == 2
    assert "the lowest ratio is 1.00" in fairness.finding[0]
    assert "overlap" in fairness.finding[1]


@pytest.mark.parametrize("small", [(0, 10, 0, 39), (0, 9, 0, 400)])
def test_a_group_with_too_few_loans_is_marked_and_not_the_reference(
    small: tuple[int, int, int, int],
) -> None:
    fairness = book(("A", 5, 20, 20, 180), ("B", 5, 20, 20, 180), ("few", *small))
    few = group(fairness, "few")
    assert few.too_few
    assert few.ratio is None
    assert fairness.favoured == "A"  # though none of the few is flagged
    assert fairness.finding[-1].endswith("few.")


def test_one_group_is_not_compared() -> None:
    fairness = book(("A", 5, 20, 20, 180), ("few", 0, 1, 0, 2))
    assert fairness.favoured is None
    assert "nothing to compare" in fairness.finding[0]
    no_late = group(book(("A", 0, 0, 1, 5)), "A")
    assert no_late.true_positive is None


def test_missing_values_are_a_group_and_small_groups_are_merged() -> None:
    many = [(f"t{place:02}", 0, 0, 0, 100 - place) for place in range(25)]
    fairness = book(*many, (None, 2, 20, 3, 30), ("not given", 1, 20, 0, 200))
    names = [(each.name, each.kind) for each in fairness.groups]
    assert len(names) == 22
    assert names[0] == ("not given", "level")  # a level of that name is another group
    assert names[1:20] == [(f"t{place:02}", "level") for place in range(19)]
    assert names[20] == ("6 other groups", "others")
    assert names[21] == ("not given", "missing")
    assert fairness.groups[20].loans == sum(100 - place for place in range(19, 25))
    assert sum(each.loans for each in fairness.groups) == sum(each[4] for each in many) + 270


def test_there_is_no_ratio_if_all_loans_are_flagged() -> None:
    fairness = book(("A", 20, 20, 180, 180), ("B", 20, 20, 180, 180))
    assert [each.ratio for each in fairness.groups] == [None, None]
    assert fairness.finding == ("town: every loan of the groups that can be compared is flagged.",)


def test_a_column_of_numbers_is_cut_into_ranges() -> None:
    ages = np.arange(18, 78)
    values = [str(age) for age in np.repeat(ages, 20)] + [None] * 60
    random = np.random.default_rng(1)
    late = (random.random(len(values)) < 0.3).astype(np.float64)
    flagged = np.array([value is not None and int(value) < 30 for value in values])
    fairness = check_fairness("age", values, flagged, late)
    assert [each.name for each in fairness.groups if each.kind == "level"] == [
        *("above 29 to 41", "above 41 to 53", "above 53 to 65", "above 65", "up to 29"),
    ]
    assert group(fairness, "up to 29").loans == 240
    assert group(fairness, "up to 29").flagged.share == 1
    assert fairness.groups[-1].kind == "missing"
    assert "up to 29 (0.00)" in fairness.finding[0]


def test_texts_are_not_cut_into_ranges() -> None:
    values = [f"{place % 30} km" for place in range(600)]
    fairness = check_fairness("way", values, np.zeros(600, dtype=bool), np.zeros(600))
    assert fairness.groups[0].name == "0 km"


def test_a_ratio_has_an_interval_and_a_difference_by_chance_needs_no_justification() -> None:
    fairness = book(("A", 10, 20, 10, 180), ("B", 5, 15, 11, 45))
    b = group(fairness, "B")
    rate, best = 1 - 16 / 60, 1 - 20 / 200
    error = math.sqrt((1 - rate) / (rate * 60) + (1 - best) / (best * 200))
    assert b.ratio == pytest.approx(rate / best)
    assert b.low == pytest.approx(rate / best * math.exp(-1.959964 * error), rel=1e-6)
    assert b.high == pytest.approx(rate / best * math.exp(1.959964 * error), rel=1e-6)
    assert group(fairness, "A").low is None
    few = book(("A", 10, 20, 10, 180), ("B", 10, 15, 8, 35))
    assert "but by no more than chance explains: B (0.71)" in few.finding[0]
    assert "justification" not in " ".join(few.finding)


def test_the_merged_group_is_not_the_reference() -> None:
    many = [(f"t{place:02}", 10, 20, 20, 100) for place in range(20)]
    rest = [(f"u{place:02}", 0, 20, 0, 79) for place in range(10)]
    fairness = book(*many, *rest)
    assert fairness.groups[-1].kind == "others"
    assert fairness.favoured is not None
    assert fairness.favoured.startswith("t")
