"""The policy: where yes begins, and the bands, exact at their ends."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.model import BANDS, Policy
from peerloan.model.arithmetic import UNIT, margin, probability


def test_by_cost_says_yes_where_expected_costs_are_equal() -> None:
    policy = Policy.by_cost()
    assert (policy.aim, policy.aim_value) == ("cost", 20.0)
    assert policy.threshold == pytest.approx(1 / 21, abs=1e-9)
    assert Policy.by_cost(1.0).threshold == 0.5
    assert Policy.by_cost(4.0).threshold == pytest.approx(0.2, abs=1e-9)


def test_the_decision_is_yes_from_the_threshold_on() -> None:
    policy = Policy.at(0.5, "threshold", 0.5)
    assert policy.threshold_margin == 0.0
    assert policy.late(0.0)
    assert policy.late(-0.0)
    assert policy.late(UNIT)
    assert not policy.late(-UNIT)
    assert policy.late_many(np.array([0.0, UNIT, -UNIT])).tolist() == [True, True, False]


def test_bands_begin_at_half_the_threshold_at_it_and_at_twice() -> None:
    policy = Policy.at(0.1, "threshold", 0.1)
    assert policy.band_margins == (margin(0.05), margin(0.1), margin(0.2))
    for band_margin, below, above in zip(policy.band_margins, BANDS, BANDS[1:], strict=False):
        assert policy.band(band_margin - UNIT) == below
        assert policy.band(band_margin) == above
        assert policy.band(band_margin + UNIT) == above
    ends = [policy.band_margins[0] - UNIT, *policy.band_margins]
    assert policy.bands_many(np.array(ends)).tolist() == [0, 1, 2, 3]
    assert policy.band(-400.0) == "low"
    assert policy.band(400.0) == "very high"


@pytest.mark.parametrize(
    ("threshold", "very_high"),
    [(0.3, 0.6), (0.4, 0.8), (0.49, 0.98), (0.5, 0.75), (0.6, 0.8), (0.9, 0.95), (0.999, 0.9995)],
)
def test_the_last_band_begins_at_twice_the_threshold_or_half_way_to_one(
    threshold: float, very_high: float
) -> None:
    policy = Policy.at(threshold, "threshold", threshold)
    assert policy.band_margins[2] == margin(very_high)


@given(st.floats(1e-6, 1 - 1e-6), st.lists(st.floats(-40, 40), max_size=5))
def test_one_and_many_decide_alike_and_bands_agree_with_the_decision(
    threshold: float, margins: list[float]
) -> None:
    policy = Policy.at(threshold, "threshold", threshold)
    low, middle, high = policy.band_margins
    assert low < middle < high
    assert middle == policy.threshold_margin
    assert all((m / UNIT).is_integer() for m in policy.band_margins)
    assert policy.threshold == probability(middle)
    assert policy.threshold == pytest.approx(threshold, abs=1e-9)
    ends = [m + step for m in policy.band_margins for step in (-UNIT, 0.0, UNIT)]
    every = np.array([*margins, *ends])
    late = policy.late_many(every).tolist()
    bands = [BANDS[i] for i in policy.bands_many(every).tolist()]
    assert [policy.late(m) for m in every.tolist()] == late
    assert [policy.band(m) for m in every.tolist()] == bands
    assert [band in ("high", "very high") for band in bands] == late


def test_a_policy_survives_json() -> None:
    policy = Policy.by_cost(7.0)
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Policy.at(threshold, "threshold", threshold)
