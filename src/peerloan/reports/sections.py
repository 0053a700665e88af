"""What outcomes say of margins, in the form in which reports show it: plots, and rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from peerloan.model import Policy, TradeOff, probabilities
from peerloan.model.arithmetic import probability
from peerloan.model.policy import DEFAULT_RATIO
from peerloan.reports import plots
from peerloan.reports.model_card import band_ranges
from peerloan.reports.plots import Line
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import Reliability, reliability
from peerloan.stats.measures import Rate

_SHARES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Judgement:
    """Margins (n,) that are judged on outcomes (n,), 1 for each late loan; a name for people."""

    name: str
    margins: Numbers
    late: Numbers

    @cached_property
    def reliability(self) -> Reliability:
        """How calibrated they are."""
        return reliability(self.margins, self.late)


def rates(found: Reliability) -> list[tuple[float, Rate]]:
    """For each bin what is expected, and the late rate with its interval."""
    return [
        (expected, Rate.of(round(observed * loans), loans))
        for expected, observed, loans in zip(
            found.expected, found.observed, found.loans, strict=True
        )
    ]


def reliability_plot(judged: Sequence[Judgement]) -> str:
    """Late rates against probabilities, with the diagonal on which they agree."""
    series = []
    for each in judged:
        expected, found = zip(*rates(each.reliability), strict=True)
        series.append(
            dots(each.name, expected, [(rate.rate, rate.low, rate.high) for rate in found])
        )
    return plots.lines(
        "Reliability",
        series,
        x_label="probability",
        y_label="late rate",
        x_scale="percent",
        y_scale="percent",
        x_range=(0, 1.05 * max(max(line.x) for line in series)),
        y_range=(0, 1.05 * max(max(line.high or line.y) for line in series)),
        diagonal=True,
    )


def dots(name: str, x: Sequence[float], y: Sequence[tuple[float, float, float]]) -> Line:
    """Dots at (value, low, high) of each x."""
    values, low, high = zip(*y, strict=True)
    return Line(name, x, values, low, high, style="dots")


def at_policy(policy: Policy, judged: Judgement) -> TradeOff:
    """What the policy's own threshold brings."""
    flagged = policy.late_many(judged.margins)
    yes, found = int(flagged.sum()), float(judged.late[flagged].sum())
    return TradeOff(
        policy.threshold_margin,
        yes / len(judged.late),
        found / float(judged.late.sum()),
        found / yes if yes else 0.0,
    )


def policy_part(policy: Policy, offered: Sequence[TradeOff], judged: Judgement) -> dict[str, Any]:
    """All that the section on the policy shows.

    Some fifteen thresholds and the chosen one, the fewest flagged first. The cost is that of 1,000
    loans, in false alarms, of which a missed late loan costs `ratio`.
    """
    ratio = policy.aim_value if policy.aim == "cost" else DEFAULT_RATIO
    rate, chosen = float(judged.late.mean()), at_policy(policy, judged)
    near = [min(offered, key=lambda row: abs(row.flagged - each)) for each in _SHARES]
    others = [row for row in dict.fromkeys(near) if row.flagged != chosen.flagged]
    rows = [
        {
            "row": row,
            "threshold": probability(row.margin),
            "lift": row.precision / rate,
            "cost": 1000 * (row.flagged * (1 - row.precision) + ratio * rate * (1 - row.recall)),
            "chosen": row is chosen,
        }
        for row in sorted([*others, chosen], key=lambda row: row.flagged)
    ]
    return {
        "rows": rows,
        "ratio": ratio,
        "is_default": policy.aim != "cost",
        "never": 1000 * ratio * rate,
        "always": 1000 * (1 - rate),
        "bands": band_rows(policy, judged),
    }


def band_rows(policy: Policy, judged: Judgement) -> list[dict[str, Any]]:
    """Each band with its loans, what is expected of them, and their late rate."""
    places, p = policy.bands_many(judged.margins), probabilities(judged.margins)
    rows = []
    for place, (band, holds) in enumerate(band_ranges(policy)):
        own = places == place
        loans = int(own.sum())
        rows.append(
            {
                "band": band,
                "holds": holds,
                "loans": loans,
                "rate": Rate.of(int(judged.late[own].sum()), loans) if loans else None,
                "expected": float(p[own].mean()) if loans else None,
            }
        )
    return rows
