"""The figures of a window: drift, performance, and the alerts that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peerloan.monitoring.alerts import rules
from peerloan.monitoring.alerts.rules import Alert, Rules
from peerloan.monitoring.counting.bins import NEW
from peerloan.monitoring.counting.counts import BinCounter, Counts
from peerloan.monitoring.performance import (
    EstimatedPerformance,
    ObservedCalibration,
    RealisedPerformance,
    Scores,
)
from peerloan.registry import Bundle
from peerloan.stats.estimate import Estimate
from peerloan.stats.psi import Psi, psi

# Most values outside the reference to list.
_NAMED = 10


@dataclass(frozen=True)
class Drift:
    """Drift of a feature or of the probability.

    It has bins by name with their counts and the reference's shares; PSI; the share of missing
    values in the window and in the reference; and values outside the reference, the most frequent
    first.
    """

    name: str
    bins: list[str]
    counts: list[int]
    reference: list[float]
    psi: Psi
    missing: Estimate
    reference_missing: float
    outside_reference: list[tuple[str, int]]

    @property
    def new_levels(self) -> Estimate | None:
        """The share of new levels of a category, with the interval that the rules use."""
        if self.bins[-2:-1] != [NEW]:
            return None
        return Estimate.of_share(self.counts[-2], sum(self.counts), rules.SIGNIFICANCE)


@dataclass(frozen=True)
class ChallengerMetrics:
    """A challenger's figures on loans of the window that it scored and whose outcome is known."""

    version: str
    realised: RealisedPerformance


@dataclass(frozen=True)
class WindowMetrics:
    """The figures of a window or a book, and its alerts."""

    version: str
    loans: int
    rejected: int
    features: list[Drift]
    score: Drift
    estimated: EstimatedPerformance
    realised: RealisedPerformance | None
    calibration: ObservedCalibration | None
    firing: list[Alert]
    # Alerts that persist if they are active already (hysteresis).
    persisting: list[Alert]
    notes: list[str]
    challengers: list[ChallengerMetrics] = field(default_factory=list)


def window_metrics(
    bundle: Bundle,
    counting: BinCounter,
    limits: Rules,
    counts: Counts,
    scores: Scores,
    outcomes: Scores | None,
    rejected: int = 0,
    notes: list[str] | None = None,
) -> WindowMetrics:
    """Compute the figures of at least one loan that a version decided on.

    `counts` and `scores` are of all loans, `outcomes` the scores of those with a known outcome.
    """
    loans = bundle.profile.loans
    missing = [column.missing for column in (*bundle.profile.columns, bundle.profile.probability)]
    every = [_drift(counting, counts, i, loans, share) for i, share in enumerate(missing)]
    *features, score = every
    policy = bundle.policy
    estimated = scores.estimated(policy)
    realised = calibration = realised_auc = None
    if outcomes is not None:
        realised, calibration = outcomes.realised(policy), outcomes.calibration(policy)
        realised_auc = outcomes.realised_auc(rules.SIGNIFICANCE)
    estimated_auc = estimated.auc and estimated.auc.wider(rules.SIGNIFICANCE)
    aucs = estimated_auc, realised_auc, bundle.manifest.intervals.get("auc")
    firing, persisting = (
        _evaluate_rules(limits, is_active, every, aucs, calibration) for is_active in (False, True)
    )
    return WindowMetrics(
        *(bundle.version, counts.loans, rejected, features, score, estimated, realised),
        *(calibration, firing, persisting, notes or []),
    )


def _evaluate_rules(
    limits: Rules,
    is_active: bool,
    every: list[Drift],
    aucs: tuple[Estimate | None, Estimate | None, tuple[float, float] | None],
    calibration: ObservedCalibration | None,
) -> list[Alert]:
    """Apply all rules but volume to a window; with `is_active`, by the limits for active alerts.

    `every` is drift of the features and last the probability; `aucs` are the estimated, realised
    and published AUC.
    """
    *features, score = every
    if is_active:
        limits = limits.with_hysteresis()
    new = {each.name: each.new_levels for each in features if each.new_levels is not None}
    return [
        *rules.check_drift(
            limits, {each.name: each.psi for each in features}, score.psi, is_active
        ),
        *rules.check_levels(limits, new, is_active),
        *rules.check_performance(*aucs, is_active),
        *(rules.check_calibration(limits, calibration, is_active) if calibration else ()),
    ]


def metrics_json(found: WindowMetrics) -> dict[str, Any]:
    """Convert figures to JSON as it is printed, stored and returned by the API."""
    realised, calibration = found.realised, found.calibration
    return {
        "features": [{"feature": each.name} | _drift_json(each) for each in found.features],
        "score": _drift_json(found.score),
        "estimated": {name: _estimate(each) for name, each in found.estimated._asdict().items()},
        "realised": None if realised is None else realised_json(realised),
        "challengers": [
            {"model": each.version, "realised": realised_json(each.realised)}
            for each in found.challengers
        ],
        "calibration": None if calibration is None else _calibration_json(calibration),
        "rules": [each._asdict() for each in found.firing],
    }


def realised_json(realised: RealisedPerformance) -> dict[str, Any]:
    """Convert realised figures to JSON."""
    return {
        name: _estimate(each) if isinstance(each, Estimate) else each
        for name, each in realised._asdict().items()
    }


def _calibration_json(calibration: ObservedCalibration) -> dict[str, Any]:
    bands = [each._asdict() for each in calibration.bands]
    return calibration._asdict() | {"ratio": _estimate(calibration.ratio), "bands": bands}


def _drift_json(drift: Drift) -> dict[str, Any]:
    return {
        "psi": drift.psi.value,
        "by_chance": drift.psi.by_chance,
        "interval": list(drift.psi.interval()),
        "missing": _estimate(drift.missing),
        "reference_missing": drift.reference_missing,
        "bins": [
            {"bin": name, "loans": loans, "reference": share}
            for name, loans, share in zip(drift.bins, drift.counts, drift.reference, strict=True)
        ],
        "strange": [{"value": value, "loans": loans} for value, loans in drift.outside_reference],
    }


def _estimate(each: Estimate | None) -> dict[str, float] | None:
    return None if each is None else each._asdict()


def _drift(
    counting: BinCounter, counts: Counts, i: int, reference_loans: int, missing: float
) -> Drift:
    own, shares = np.array(counts.bins[i]), counting.shares[i]
    found = psi(own, shares, reference_loans)
    assert found is not None  # noqa: S101  there are loans on both sides
    strange = sorted(counts.strange[i].items(), key=lambda each: (-each[1], each[0]))
    return Drift(
        *(counting.names[i], counting.bins[i].names, own.tolist(), shares.tolist(), found),
        *(Estimate.of_share(int(own[-1]), int(own.sum())), missing, strange[:_NAMED]),
    )
