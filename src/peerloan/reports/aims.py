"""The aims of a threshold beside each other: what the threshold of each flags, finds and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peerloan.model import OperatingPoint, Policy
from peerloan.model.policy import (
    DEFAULT_COST_RATIO,
    USUAL_AIMS,
    late_rate_of,
    operating_point,
    spell_aim,
)

# The card and the report both contain it.
AIMS_NOTE = (
    "The figures of balanced and cost, unless chosen, are those of the next higher threshold of "
    "the trade-off table, which flags slightly fewer loans. The option --aim of peerloan models "
    "policy chooses another aim."
)


@dataclass(frozen=True)
class AimRow:
    """An aim as `--aim` takes it, its threshold, and the results of that threshold.

    `cost` is per 1,000 loans, in units of one false alarm.
    """

    aim: str
    threshold: float
    result: OperatingPoint
    cost: float
    is_chosen: bool


def cost_ratio(policy: Policy) -> float:
    """Return how many false alarms a missed late loan costs: the default, if the aim is another."""
    return policy.aim_value if policy.aim == "cost" else DEFAULT_COST_RATIO


def expected_cost(result: OperatingPoint, ratio: float, late_rate: float) -> float:
    """Compute the cost of a threshold per 1,000 loans, in units of one false alarm."""
    false_alarms = result.flagged * (1 - result.precision)
    return 1000 * (false_alarms + ratio * late_rate * (1 - result.recall))


def compare_aims(
    policy: Policy, at_policy: OperatingPoint, trade_off: Sequence[OperatingPoint]
) -> list[AimRow]:
    """List the policy's aim, with its results `at_policy`, and the other aims with usual values.

    An aim that no threshold of the trade-off table reaches is left out. The list is empty without
    a table.
    """
    if not trade_off:
        return []
    policies = {policy.aim: policy}
    for aim, value in USUAL_AIMS.items():
        try:
            policies.setdefault(aim, Policy.by_aim(aim, value, trade_off))
        except ValueError:  # a capacity below the smallest flagged share
            continue
    ratio, late_rate = cost_ratio(policy), late_rate_of(trade_off)
    rows = []
    for aim in sorted(policies, key=[*USUAL_AIMS, policy.aim].index):
        other = policies[aim]
        result = at_policy if other is policy else operating_point(other, trade_off)
        rows.append(
            AimRow(
                spell_aim(aim, other.aim_value),
                other.threshold,
                result,
                expected_cost(result, ratio, late_rate),
                is_chosen=other is policy,
            )
        )
    return rows
