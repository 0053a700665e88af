"""From a margin to a decision: the threshold and the bands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.model import arithmetic
from peerloan.stats.arrays import Numbers

BANDS = ("low", "medium", "high", "very high")
# What a missed late loan costs, in false alarms, where nobody says otherwise.
DEFAULT_RATIO = 20.0
# The figures that depend on where yes begins.
AT_THRESHOLD = ("recall", "flagged")


class OperatingPoint(msgspec.Struct, frozen=True):
    """What a threshold brings, on loans that were not fitted on.

    From `margin` on, `flagged` of all loans are called late, `recall` of the late ones among
    them; `precision` of those called late are late.
    """

    margin: float
    flagged: float
    recall: float
    precision: float


class Policy(msgspec.Struct, frozen=True):
    """Where yes begins, and the bands.

    `threshold` is a probability; decisions compare the margin with `threshold_margin`, its
    log-odds. `band_margins` are the lower ends of medium, high and very high.
    """

    aim: str
    aim_value: float
    threshold: float
    threshold_margin: float
    band_margins: tuple[float, float, float]

    @classmethod
    def by_cost(cls, ratio: float = DEFAULT_RATIO) -> Policy:
        """The threshold at which expected costs are equal: a missed late loan costs `ratio`
        false alarms, so say yes from 1 / (1 + ratio) on (Elkan 2001).
        """
        return cls.at(1 / (1 + ratio), "cost", ratio)

    @classmethod
    def at(cls, threshold: float, aim: str, aim_value: float) -> Policy:
        """A policy with the usual bands: below half the threshold, below it, below twice, above.

        Twice a threshold of a half or more is no probability: the last band then begins half-way
        to 1. Raises ValueError for a threshold that no probability can stand on both sides of.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"a threshold must lie between 0 and 1; given: {threshold}")
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
        """The policy that reaches an aim; raises ValueError with the reason if none does.

        `cost`: equal expected costs, where a missed late loan costs `value` false alarms;
        `capacity`: at most the riskiest share `value` of all loans; `recall`: as few loans as
        find the share `value` of the late ones; `f2`: the largest F-measure that weighs recall
        twice as much as precision (van Rijsbergen 1979). All but `cost` need a trade-off, and are
        reached as nearly as its steps allow.
        """
        check_aim(aim, value)
        if aim == "cost":
            return cls.by_cost(value)
        if not trade_off:
            raise ValueError(f"{aim}: this version was published without a trade-off table")
        if aim == "capacity":
            within = [row for row in trade_off if row.flagged <= value]
            if not within:
                fewest = min(row.flagged for row in trade_off)
                raise ValueError(
                    f"{aim}: no threshold of this version flags so few as {value:.4%}; "
                    f"the fewest are {fewest:.4%}"
                )
            row = max(within, key=lambda row: row.flagged)
        elif aim == "recall":
            row = min(
                (row for row in trade_off if row.recall >= value), key=lambda row: row.flagged
            )
        else:
            row = max(trade_off, key=_f2)
        return cls.at(_at_or_below(row.margin), aim, value)

    def check(self) -> None:
        """Raise ValueError unless what is shown is what is decided by."""
        if self.threshold != arithmetic.probability(self.threshold_margin):
            raise ValueError(
                f"policy: the threshold {self.threshold} is not that of its margin, "
                f"{arithmetic.probability(self.threshold_margin)}"
            )
        low, middle, high = self.band_margins
        if not (low < middle < high and middle == self.threshold_margin):
            raise ValueError(
                f"policy: expected bands that rise around the threshold, given {self.band_margins}"
            )

    def late(self, margin: float) -> bool:
        """The decision: yes from the threshold on."""
        return margin >= self.threshold_margin

    def band(self, margin: float) -> str:
        """The band of a margin."""
        return BANDS[bisect_right(self.band_margins, margin)]

    def late_many(self, margins: Numbers) -> npt.NDArray[np.bool_]:
        """The decisions (n,) of many margins."""
        return margins >= self.threshold_margin

    def bands_many(self, margins: Numbers) -> npt.NDArray[np.int64]:
        """The bands (n,) of many margins, as positions in BANDS."""
        return np.searchsorted(np.array(self.band_margins), margins, side="right")


def check_aim(aim: str, value: float) -> None:
    """Raise ValueError for an aim that no table could reach."""
    if aim not in ("cost", "capacity", "recall", "f2"):
        raise ValueError(f"expected cost, capacity, recall or f2, given {aim!r}")
    if aim == "cost" and not 0 < value < 1e6:
        raise ValueError(f"cost: expected a ratio above 0 and below 1,000,000, given {value:g}")
    if aim in ("capacity", "recall") and not 0 < value < 1:
        raise ValueError(f"{aim}: expected a share between 0 and 1, given {value:g}")


def figures_at(policy: Policy, trade_off: Sequence[OperatingPoint]) -> dict[str, float]:
    """Recall and share flagged at a policy's threshold, as far as a trade-off table tells."""
    if not trade_off:
        return {}
    at = [row for row in trade_off if row.margin >= policy.threshold_margin]
    if not at:  # above the first row, that is, fewer than it flags
        return {"recall": 0.0, "flagged": 0.0}
    row = max(at, key=lambda row: row.flagged)
    return {"recall": row.recall, "flagged": row.flagged}


def _at_or_below(margin: float) -> float:
    """A threshold that a loan of this margin reaches: the nearest one may lie just above it."""
    step = 1e-9  # what probabilities are rounded to
    nearest = min(max(arithmetic.probability(margin), step), 1 - step)
    above = arithmetic.margin(nearest) > margin
    return nearest - step if above and nearest > step else nearest


def _f2(row: OperatingPoint) -> float:
    weighed = 4 * row.precision + row.recall
    return 5 * row.precision * row.recall / weighed if weighed else 0.0
