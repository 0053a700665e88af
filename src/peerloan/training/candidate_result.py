"""What a training run learned of one candidate: all that its report, card and manifest say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition
from peerloan.model import Policy, Scorecard, TradeOff
from peerloan.registry import OnnxParts, TrainedOn
from peerloan.stats.arrays import Numbers
from peerloan.training.search import Found, Trial


@dataclass(frozen=True)
class Later:
    """How the version did on a later book: calibrated margins and outcomes, and its name."""

    book: str
    margins: Numbers
    late: Numbers


@dataclass(frozen=True)
class Group:
    """A column to check decisions by: each loan's group, as text (None where it is missing)."""

    column: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Study:
    """One candidate after its search, its calibration and its final fit.

    `margins` (n,) are out of fold and calibrated on the other folds, `late` (n,) is 1 for each
    late loan, `fold` (n,) numbers each loan's fold; `estimator` is the deployed form, calibrated;
    `doubts` are what to doubt about the tables.
    """

    definition: Definition
    trained_on: TrainedOn
    found: Found
    trial: Trial
    margins: Numbers
    late: Numbers
    fold: npt.NDArray[np.int64]
    estimator: Scorecard | OnnxParts
    policy: Policy
    trade_off: tuple[TradeOff, ...]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    later: Later | None = None
    groups: tuple[Group, ...] = ()
    doubts: tuple[str, ...] = ()
    without_outcome: int = 0


# Shares of the loans that a trade-off table has: in steps of 0.1 % to 5 %, of 0.5 % from there.
_SHARES = (*(step / 1000 for step in range(1, 50)), *(step / 200 for step in range(10, 201)))


def trade_off(margins: Numbers, late: Numbers) -> tuple[TradeOff, ...]:
    """What each threshold brings: at 0.1 %, 0.2 %, … 5 %, 5.5 %, … 100 % of the loans flagged, or
    just below; where loans tie, all of them are flagged together, and there are fewer rows.
    """
    order = np.argsort(-margins, kind="stable")
    found = np.cumsum(late[order])
    rows: dict[float, TradeOff] = {}
    for share in _SHARES:
        margin = float(margins[order[max(1, int(len(late) * share + 1e-9)) - 1]])
        # A threshold takes all loans of its margin.
        flagged = int((margins >= margin).sum())
        rows[margin] = TradeOff(
            margin,
            flagged / len(late),
            float(found[flagged - 1] / late.sum()),
            float(found[flagged - 1] / flagged),
        )
    return tuple(rows.values())
