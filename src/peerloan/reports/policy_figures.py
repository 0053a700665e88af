"""The results of thresholds and bands on loans with outcomes, for the policy section of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peerloan.model import OperatingPoint, Policy, probabilities
from peerloan.model.arithmetic import probability
from peerloan.reports.aims import cost_ratio, expected_cost
from peerloan.reports.model_card import band_ranges
from peerloan.reports.report_json import BandRow, PolicyFigures, ThresholdRow
from peerloan.stats.arrays import Numbers
from peerloan.stats.measures import Rate

# The shares of flagged loans whose thresholds are shown.
_SHARES = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class ScoredOutcomes:
    """Margins (n,) of loans, and their outcomes (n,): 1 for each late loan."""

    margins: Numbers
    late: Numbers


def at_policy(policy: Policy, scored: ScoredOutcomes) -> OperatingPoint:
    """Compute the results of the policy's threshold."""
    flagged = policy.late_many(scored.margins)
    n_flagged, late_flagged = int(flagged.sum()), float(scored.late[flagged].sum())
    return OperatingPoint(
        policy.threshold_margin,
        n_flagged / len(scored.late),
        late_flagged / float(scored.late.sum()),
        late_flagged / n_flagged if n_flagged else 0.0,
    )


def policy_figures(
    policy: Policy, thresholds: Sequence[OperatingPoint], scored: ScoredOutcomes
) -> PolicyFigures:
    """Compute the results of the policy's threshold and bands, and of about fifteen others."""
    ratio = cost_ratio(policy)
    rate, chosen = float(scored.late.mean()), at_policy(policy, scored)
    nearest = [min(thresholds, key=lambda row: abs(row.flagged - share)) for share in _SHARES]
    others = [row for row in dict.fromkeys(nearest) if row.flagged != chosen.flagged]
    rows = [
        ThresholdRow(
            row=row,
            threshold=probability(row.margin),
            lift=row.precision / rate,
            cost=expected_cost(row, ratio, rate),
            is_chosen=row is chosen,
        )
        for row in sorted([*others, chosen], key=lambda row: row.flagged)
    ]
    return PolicyFigures(
        rows=tuple(rows),
        ratio=ratio,
        is_default=policy.aim != "cost",
        never=1000 * ratio * rate,
        always=1000 * (1 - rate),
        bands=band_rows(policy, scored),
    )


def band_rows(policy: Policy, scored: ScoredOutcomes) -> tuple[BandRow, ...]:
    """List each band with its loans, expected late rate and observed late rate."""
    places, p = policy.bands_many(scored.margins), probabilities(scored.margins)
    rows = []
    for place, (band, ends) in enumerate(band_ranges(policy)):
        in_band = places == place
        loans = int(in_band.sum())
        rate = Rate.of(int(scored.late[in_band].sum()), loans) if loans else None
        rows.append(BandRow(band, ends, loans, rate, float(p[in_band].mean()) if loans else None))
    return tuple(rows)
