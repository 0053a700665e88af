"""The trade-off table: the results of thresholds on loans that were not fitted on."""

from __future__ import annotations

import numpy as np

from peerloan.model import OperatingPoint
from peerloan.stats.arrays import Numbers

# Shares of flagged loans in a trade-off table: in steps of 0.1 % to 5 %, then of 0.5 %.
_SHARES = (*(step / 1000 for step in range(1, 50)), *(step / 200 for step in range(10, 201)))


def trade_off(margins: Numbers, late: Numbers) -> tuple[OperatingPoint, ...]:
    """Compute the share flagged, recall and precision of each threshold.

    The thresholds flag 0.1 %, 0.2 %, … 5 %, 5.5 %, … 100 % of the loans, rounded down to whole
    loans. Loans with equal margins are flagged together, so a row may flag more loans, and there
    may be fewer rows.
    """
    order = np.argsort(-margins, kind="stable")
    late_flagged = np.cumsum(late[order])
    rows: dict[float, OperatingPoint] = {}
    for share in _SHARES:
        margin = float(margins[order[max(1, int(len(late) * share + 1e-9)) - 1]])
        # A threshold flags all loans with its margin.
        flagged = int((margins >= margin).sum())
        rows[margin] = OperatingPoint(
            margin,
            flagged / len(late),
            float(late_flagged[flagged - 1] / late.sum()),
            float(late_flagged[flagged - 1] / flagged),
        )
    return tuple(rows.values())
