"""The policy: threshold and bands, exact at their limits."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.model import BANDS, OperatingPoint, Policy
from peerloan.model.arithmetic import UNIT, margin, probability
from peerloan.model.policy import figures_at, operating_point, spell_aim


def test_the_threshold_by_cost_makes_expected_costs_equal() -> None:
    policy = Policy.by_cost()
    assert (policy.aim, policy.aim_value) == ("cost", 20.0)
    assert policy.threshold == pytest.approx(1 / 21, abs=1e-9)
    assert Policy.by_cost(1.0).threshold == 0.5
    assert Policy.by_cost(4.0).threshold == pytest.approx(0.2, abs=1e-9)


def test_a_loan_at_the_threshold_is_late() -> None:
    policy = Policy.at(0.5, "threshold", 0.5)
    assert policy.threshold_margin == 0.0
    assert policy.late(0.0)
    assert policy.late(-0.0)
    assert policy.late(UNIT)
    assert not policy.late(-UNIT)
    assert policy.late_many(np.array([0.0, UNIT, -UNIT])).tolist() == [True, True, False]


def test_bands_begin_at_half_the_threshold_the_threshold_and_its_double() -> None:
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
def test_the_last_band_begins_at_the_double_threshold_or_half_way_to_one(
    threshold: float, very_high: float
) -> None:
    policy = Policy.at(threshold, "threshold", threshold)
    assert policy.band_margins[2] == margin(very_high)


@given(st.floats(1e-6, 1 - 1e-6), st.lists(st.floats(-40, 40), max_size=5))
def test_one_loan_and_many_get_the_same_decision_and_band(
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


def test_a_policy_is_the_same_after_json() -> None:
    policy = Policy.by_cost(7.0)
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_threshold_outside_0_and_1_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Policy.at(threshold, "threshold", threshold)


# Aims

# 100 loans, 10 of them late. Each row flags more loans than the row before.
TRADE_OFF = (
    OperatingPoint(2.0, 0.02, 0.1, 0.5),
    OperatingPoint(1.0, 0.05, 0.3, 0.6),
    OperatingPoint(0.0, 0.20, 0.6, 0.3),
    OperatingPoint(-1.0, 0.40, 0.8, 0.2),
    OperatingPoint(-2.0, 0.90, 1.0, 1 / 9),
    OperatingPoint(-3.0, 1.00, 1.0, 0.1),
)


def margin_by(aim: str, value: float) -> float:
    """Return the margin of the row that an aim chooses."""
    policy = Policy.by_aim(aim, value, TRADE_OFF)
    assert (policy.aim, policy.aim_value) == (aim, value)
    row = min(TRADE_OFF, key=lambda row: abs(row.margin - policy.threshold_margin))
    assert policy.threshold_margin == pytest.approx(row.margin, abs=1e-7)
    # A loan with exactly the row's margin must be flagged.
    assert policy.late(row.margin)
    return row.margin


def test_the_aim_cost_needs_no_trade_off() -> None:
    assert Policy.by_aim("cost", 7.0, ()) == Policy.by_cost(7.0)


def test_balanced_is_the_late_rate_of_the_table() -> None:
    policy = Policy.by_aim("balanced", 0.0, TRADE_OFF)
    assert policy == Policy.balanced(0.1)
    assert (policy.aim, policy.aim_value) == ("balanced", 0.0)
    assert policy.threshold == pytest.approx(0.1, abs=1e-9)


@given(st.floats(0.001, 0.999), st.floats(-8, 8))
def test_balanced_decides_as_one_half_does_with_equal_weights(rate: float, margin: float) -> None:
    """Of equally many late and on-time loans, the odds are those divided by the rate's odds."""
    odds = math.exp(margin) / (rate / (1 - rate))
    if abs(odds - 1) > 1e-6:
        assert Policy.balanced(rate).late(margin) == (odds / (1 + odds) >= 0.5)


def test_balanced_is_the_cost_at_which_all_late_loans_weigh_as_much_as_the_others() -> None:
    assert Policy.balanced(0.02).threshold == Policy.by_cost(0.98 / 0.02).threshold


class PolicyBefore(msgspec.Struct, frozen=True):
    """A policy as the release before reads it, which knows no aim `balanced`."""

    aim: str
    aim_value: float
    threshold: float
    threshold_margin: float
    band_margins: tuple[float, float, float]


def test_the_release_before_reads_the_default_policy() -> None:
    policy = Policy.balanced(0.022)
    read = msgspec.json.decode(msgspec.json.encode(policy), type=PolicyBefore)
    assert msgspec.structs.asdict(read) == msgspec.structs.asdict(policy)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("balanced", Policy.balanced(0.1)),
        ("cost=7.5", Policy.by_cost(7.5)),
        ("recall=0.6", Policy.at(0.1, "recall", 0.6)),
        ("f2", Policy.at(0.1, "f2", 0.0)),
    ],
)
def test_an_aim_is_spelled_as_the_option_takes_it(text: str, policy: Policy) -> None:
    assert spell_aim(policy.aim, policy.aim_value) == text


def test_a_threshold_above_every_row_flags_no_loan() -> None:
    nothing = OperatingPoint(Policy.at(0.99, "cost", 1).threshold_margin, 0.0, 0.0, 0.0)
    assert operating_point(Policy.at(0.99, "cost", 1), TRADE_OFF) == nothing


@pytest.mark.parametrize(
    ("share", "due"),
    [
        (0.02, 2.0),
        (0.049, 2.0),
        (0.05, 1.0),
        (0.1, 1.0),
        (0.2, 0.0),
        (0.39999, 0.0),
        (0.95, -2.0),
        (0.999, -2.0),
    ],
)
def test_capacity_flags_at_most_its_share(share: float, due: float) -> None:
    assert margin_by("capacity", share) == due


def test_a_capacity_below_the_smallest_flagged_share_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"as few as 1\.0000% of loans; the smallest share is 2\.0000%"
    ):
        Policy.by_aim("capacity", 0.01, TRADE_OFF)


@pytest.mark.parametrize(
    ("share", "due"),
    [(0.05, 2.0), (0.1, 2.0), (0.11, 1.0), (0.6, 0.0), (0.61, -1.0), (0.8, -1.0), (0.99, -2.0)],
)
def test_recall_finds_at_least_its_share_with_the_fewest_flagged(share: float, due: float) -> None:
    assert margin_by("recall", share) == due


def test_f2_maximizes_the_measure_computed_by_hand() -> None:
    # 5 p r / (4 p + r): 0.1190, 0.3333, 0.5000, 0.5000, 0.3846, 0.3571. The first maximum counts.
    assert margin_by("f2", 0.0) == 0.0
    better = (*TRADE_OFF[:3], OperatingPoint(-1.0, 0.40, 0.81, 0.2025), *TRADE_OFF[4:])
    assert Policy.by_aim("f2", 0.0, better).threshold_margin == pytest.approx(-1.0, abs=1e-7)


def test_f2_never_prefers_a_row_with_zero_recall() -> None:
    rows = (OperatingPoint(1.0, 0.1, 0.0, 0.0), OperatingPoint(0.0, 1.0, 1.0, 0.1))
    assert Policy.by_aim("f2", 0.0, rows).threshold_margin == 0.0


@pytest.mark.parametrize("aim", ["capacity", "recall"])
@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 10.0, math.nan, math.inf])
def test_a_share_outside_0_and_1_is_refused(aim: str, share: float) -> None:
    with pytest.raises(ValueError, match=f"{aim}: expected a share between 0 and 1"):
        Policy.by_aim(aim, share, TRADE_OFF)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1e6, math.nan, math.inf])
def test_a_cost_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="cost: expected a ratio above 0"):
        Policy.by_aim("cost", ratio, TRADE_OFF)


@pytest.mark.parametrize(
    ("aim", "value"), [("balanced", 0.0), ("capacity", 0.1), ("recall", 0.5), ("f2", 0.0)]
)
def test_an_aim_without_a_trade_off_is_refused(aim: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{aim}: needs a trade-off table"):
        Policy.by_aim(aim, value, ())


def test_an_unknown_aim_is_refused() -> None:
    with pytest.raises(
        ValueError, match="expected balanced, cost, capacity, recall, f2, given 'profit'"
    ):
        Policy.by_aim("profit", 0.5, TRADE_OFF)


@given(st.floats(-60, 60))
def test_the_threshold_of_any_row_flags_a_loan_with_its_margin(row_margin: float) -> None:
    rows = (OperatingPoint(row_margin, 0.5, 1.0, 0.1),)
    policy = Policy.by_aim("recall", 0.5, rows)
    # For smaller margins there is no lower probability of nine decimals.
    if row_margin > -20:
        assert policy.late(row_margin)
    if abs(row_margin) < 10:
        assert policy.threshold_margin == pytest.approx(row_margin, abs=1e-4)


def test_figures_at_a_threshold_are_those_of_the_last_row_that_reaches_it() -> None:
    for row in TRADE_OFF:
        policy = Policy.by_aim("capacity", min(row.flagged, 0.9999), TRADE_OFF)
        if row.flagged < 1:
            assert figures_at(policy, TRADE_OFF) == {"recall": row.recall, "flagged": row.flagged}
    between = Policy.at(probability(0.5), "threshold", 0.5)
    assert figures_at(between, TRADE_OFF) == {"recall": 0.3, "flagged": 0.05}
    assert figures_at(Policy.at(0.99, "threshold", 0.99), TRADE_OFF) == {
        "recall": 0.0,
        "flagged": 0.0,
    }
    assert figures_at(between, ()) == {}
