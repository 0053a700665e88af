"""The decision policy: the threshold and the risk bands that a margin is compared with."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.model import arithmetic
from peerloan.stats.arrays import Numbers

BANDS = ("low", "medium", "high", "very high")
# The default cost of a missed late loan. The unit is the cost of one false alarm: a loan that is
# flagged and then paid on time.
DEFAULT_COST_RATIO = 20.0
# Each aim with its usual value; it is 0 for an aim without a value.
USUAL_AIMS = {
    "balanced": 0.0,
    "cost": DEFAULT_COST_RATIO,
    "capacity": 0.1,
    "recall": 0.8,
    "f2": 0.0,
}
# The aims without a value.
PLAIN_AIMS = ("balanced", "f2")
# The figures that depend on the threshold.
THRESHOLD_FIGURES = ("recall", "flagged")


class OperatingPoint(msgspec.Struct, frozen=True):
    """A row of the trade-off table: the result of a threshold on loans outside the training set.

    A loan is flagged (predicted late) if its margin is at least `margin`. `flagged` is the share of
    all loans that are flagged, `recall` the share of the late loans that are flagged, `precision`
    the share of the flagged loans that are late.
    """

    margin: float
    flagged: float
    recall: float
    precision: float


class Policy(msgspec.Struct, frozen=True):
    """The decision threshold and the bands of a version.

    `aim` and `aim_value` record how the threshold was chosen (see `by_aim`). `threshold` is a
    probability. Decisions compare the margin with `threshold_margin`, the log-odds of the
    threshold. `band_margins` are the lower ends of the bands medium, high and very high.
    """

    aim: str
    aim_value: float
    threshold: float
    threshold_margin: float
    band_margins: tuple[float, float, float]

    @classmethod
    def by_cost(cls, ratio: float = DEFAULT_COST_RATIO) -> Policy:
        """Return the policy that minimizes the expected cost.

        A missed late loan costs as much as `ratio` false alarms, so the threshold is
        1 / (1 + ratio) (Elkan 2001).
        """
        return cls.at(1 / (1 + ratio), "cost", ratio)

    @classmethod
    def balanced(cls, late_rate: float) -> Policy:
        """Return the policy whose threshold is the late rate of a table.

        With calibrated probabilities it decides as a threshold of 0.5 would after weighting the
        loans so that late and on-time ones have equal weight.
        """
        return cls.at(late_rate, "balanced", 0.0)

    @classmethod
    def at(cls, threshold: float, aim: str, aim_value: float) -> Policy:
        """Return a policy with this threshold and the default bands.

        The bands begin at half the threshold, at the threshold, and at twice the threshold. If the
        threshold is 0.5 or more, the last band begins half-way between the threshold and 1. Raises
        ValueError unless 0 < threshold < 1.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a number between 0 and 1, given {threshold}")
        margin = arithmetic.margin(threshold)
        bands = (threshold / 2, 2 * threshold if threshold < 0.5 else (1 + threshold) / 2)
        return cls(
            aim,
            aim_value,
            arithmetic.probability(margin),
            margin,
            (arithmetic.margin(bands[0]), margin, arithmetic.margin(bands[1])),
        )

    @classmethod
    def by_aim(cls, aim: str, value: float, trade_off: Sequence[OperatingPoint]) -> Policy:
        """Return the policy that reaches an aim. Raises ValueError if no threshold does.

        - `balanced`: weigh late and on-time loans equally; `value` is not used
        - `cost`: minimize the expected cost; a missed late loan costs `value` false alarms
        - `capacity`: flag as many loans as possible, but at most the share `value` of all loans
        - `recall`: flag as few loans as possible, but at least the share `value` of the late ones
        - `f2`: maximize the F-measure that weighs recall twice as much as precision (van
          Rijsbergen 1979); `value` is not used

        `capacity`, `recall` and `f2` choose a row of the trade-off table, so they are reached only
        as closely as its rows allow.
        """
        check_aim(aim, value)
        if aim == "cost":
            return cls.by_cost(value)
        if not trade_off:
            raise ValueError(
                f"{aim}: needs a trade-off table, and this version was published without one"
            )
        if aim == "balanced":
            return cls.balanced(late_rate_of(trade_off))
        if aim == "capacity":
            affordable = [row for row in trade_off if row.flagged <= value]
            if not affordable:
                fewest = min(row.flagged for row in trade_off)
                raise ValueError(
                    f"{aim}: no threshold of this version flags as few as {value:.4%} of loans; "
                    f"the smallest share is {fewest:.4%}"
                )
            row = max(affordable, key=lambda row: row.flagged)
        elif aim == "recall":
            row = min(
                (row for row in trade_off if row.recall >= value), key=lambda row: row.flagged
            )
        else:
            row = max(trade_off, key=_f2)
        return cls.at(_threshold_for(row.margin), aim, value)

    def check(self) -> None:
        """Raise ValueError unless threshold, margin and bands agree with each other."""
        expected = arithmetic.probability(self.threshold_margin)
        if self.threshold != expected:
            raise ValueError(
                f"policy: threshold: expected {expected}, the probability of threshold_margin, "
                f"given {self.threshold}"
            )
        low, middle, high = self.band_margins
        if not (low < middle < high and middle == self.threshold_margin):
            raise ValueError(
                "policy: band_margins: expected ascending numbers with threshold_margin in the "
                f"middle, given {self.band_margins}"
            )

    def late(self, margin: float) -> bool:
        """Decide on one loan: True (late) if its margin reaches the threshold."""
        return margin >= self.threshold_margin

    def band(self, margin: float) -> str:
        """Return the band of a margin."""
        return BANDS[bisect_right(self.band_margins, margin)]

    def late_many(self, margins: Numbers) -> npt.NDArray[np.bool_]:
        """Decide on many loans: whether each margin (n,) reaches the threshold."""
        return margins >= self.threshold_margin

    def bands_many(self, margins: Numbers) -> npt.NDArray[np.int64]:
        """Return the bands (n,) of many margins, as positions in BANDS."""
        return np.searchsorted(np.array(self.band_margins), margins, side="right")


def check_aim(aim: str, value: float) -> None:
    """Raise ValueError unless an aim exists and its value is in range."""
    if aim not in USUAL_AIMS:
        raise ValueError(f"aim: expected {', '.join(USUAL_AIMS)}, given {aim!r}")
    if aim == "cost" and not 0 < value < 1e6:
        raise ValueError(f"cost: expected a ratio above 0 and below 1,000,000, given {value:g}")
    if aim in ("capacity", "recall") and not 0 < value < 1:
        raise ValueError(f"{aim}: expected a share between 0 and 1, given {value:g}")


def spell_aim(aim: str, value: float) -> str:
    """Write an aim with its value as the option `--aim` takes it: `balanced`, `cost=20`."""
    return aim if aim in PLAIN_AIMS else f"{aim}={value:g}"


def late_rate_of(trade_off: Sequence[OperatingPoint]) -> float:
    """Return the late rate of a trade-off table's loans: its last threshold flags all of them."""
    return max(trade_off, key=lambda row: row.flagged).precision


def operating_point(policy: Policy, trade_off: Sequence[OperatingPoint]) -> OperatingPoint:
    """Look up the results of a policy's threshold in a trade-off table that is not empty.

    They are those of the last row that reaches the threshold.
    """
    rows = [row for row in trade_off if row.margin >= policy.threshold_margin]
    if not rows:  # the threshold is above every row, so it flags fewer loans than any of them
        return OperatingPoint(policy.threshold_margin, 0.0, 0.0, 0.0)
    return max(rows, key=lambda row: row.flagged)


def figures_at(policy: Policy, trade_off: Sequence[OperatingPoint]) -> dict[str, float]:
    """Look up recall and the flagged share of a policy's threshold; empty without a table."""
    if not trade_off:
        return {}
    row = operating_point(policy, trade_off)
    return {"recall": row.recall, "flagged": row.flagged}


def _threshold_for(margin: float) -> float:
    """Return the highest threshold that a loan of this margin reaches.

    The nearest probability may be just above the margin's; then the next lower one is returned.
    """
    step = 1e-9  # probabilities are rounded to multiples of it
    nearest = min(max(arithmetic.probability(margin), step), 1 - step)
    above = arithmetic.margin(nearest) > margin
    return nearest - step if above and nearest > step else nearest


def _f2(row: OperatingPoint) -> float:
    """Return the F-measure of a row with recall weighed twice as much as precision."""
    denominator = 4 * row.precision + row.recall
    return 5 * row.precision * row.recall / denominator if denominator else 0.0
