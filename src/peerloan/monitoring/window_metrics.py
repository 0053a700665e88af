"""The figures of a window: drift, performance, and the alerts that the rules derive from them."""

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
_MAX_VALUES = 10


@dataclass(frozen=True)
class Drift:
    """Drift of a feature or of the probability.

    `bins` are the names of the bins, `counts` the loans of the window in them, `reference` the
    reference's shares of loans. `missing` and `reference_missing` are the shares of missing values.
    `outside_reference` lists values outside the reference with their loans, most frequent first.
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
        """The share of new levels, with the interval that the rules use; None for a number."""
        if self.bins[-2:-1] != [NEW]:
            return None
        return Estimate.of_share(self.counts[-2], sum(self.counts), rules.SIGNIFICANCE)


@dataclass(frozen=True)
class ChallengerMetrics:
    """A challenger's figures on the loans of a window that it scored and whose outcome is known."""

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
    """Compute the figures of a window with at least one loan.

    `counts` and `scores` are of all loans, `outcomes` the scores of those with a known outcome.
    """
    loans = bundle.profile.loans
    missing = [column.missing for column in (*bundle.profile.columns, bundle.profile.probability)]
    drifts = [_drift(counting, counts, i, loans, share) for i, share in enumerate(missing)]
    *features, score = drifts
    policy = bundle.policy
    estimated = scores.estimated(policy)
    realised = calibration = realised_auc = None
    if outcomes is not None:
        realised, calibration = outcomes.realised(policy), outcomes.calibration(policy)
        realised_auc = outcomes.realised_auc(rules.SIGNIFICANCE)
    estimated_auc = estimated.auc and estimated.auc.with_significance(rules.SIGNIFICANCE)
    aucs = estimated_auc, realised_auc, bundle.manifest.intervals.get("auc")
    firing, persisting = (
        _evaluate_rules(limits, is_active, drifts, aucs, calibration) for is_active in (False, True)
    )
    return WindowMetrics(
        version=bundle.version,
        loans=counts.loans,
        rejected=rejected,
        features=features,
        score=score,
        estimated=estimated,
        realised=realised,
        calibration=calibration,
        firing=firing,
        persisting=persisting,
        notes=notes or [],
    )


def _evaluate_rules(
    limits: Rules,
    is_active: bool,
    drifts: list[Drift],
    aucs: tuple[Estimate | None, Estimate | None, tuple[float, float] | None],
    calibration: ObservedCalibration | None,
) -> list[Alert]:
    """Apply all rules but volume to a window; with `is_active`, by the limits for active alerts.

    `drifts` are those of the features and, last, of the probability. `aucs` are the estimated AUC,
    the realised one, and the interval that was published with the version.
    """
    *features, score = drifts
    if is_active:
        limits = limits.with_hysteresis()
    new_levels = {
        drift.name: drift.new_levels for drift in features if drift.new_levels is not None
    }
    return [
        *rules.check_drift(
            limits, {drift.name: drift.psi for drift in features}, score.psi, is_active
        ),
        *rules.check_levels(limits, new_levels, is_active),
        *rules.check_performance(*aucs, is_active),
        *(rules.check_calibration(limits, calibration, is_active) if calibration else ()),
    ]


def metrics_json(metrics: WindowMetrics) -> dict[str, Any]:
    """Convert figures to the JSON that is printed, stored, and returned by the API."""
    realised, calibration = metrics.realised, metrics.calibration
    return {
        "features": [{"feature": drift.name} | _drift_json(drift) for drift in metrics.features],
        "score": _drift_json(metrics.score),
        "estimated": {
            name: _estimate_json(estimate) for name, estimate in metrics.estimated._asdict().items()
        },
        "realised": None if realised is None else realised_json(realised),
        "challengers": [
            {"model": challenger.version, "realised": realised_json(challenger.realised)}
            for challenger in metrics.challengers
        ],
        "calibration": None if calibration is None else _calibration_json(calibration),
        "rules": [alert._asdict() for alert in metrics.firing],
    }


def realised_json(realised: RealisedPerformance) -> dict[str, Any]:
    """Convert realised figures to JSON."""
    return {
        name: _estimate_json(figure) if isinstance(figure, Estimate) else figure
        for name, figure in realised._asdict().items()
    }


def _calibration_json(calibration: ObservedCalibration) -> dict[str, Any]:
    bands = [band._asdict() for band in calibration.bands]
    return calibration._asdict() | {"ratio": _estimate_json(calibration.ratio), "bands": bands}


def _drift_json(drift: Drift) -> dict[str, Any]:
    return {
        "psi": drift.psi.value,
        "by_chance": drift.psi.by_chance,
        "interval": list(drift.psi.interval()),
        "missing": _estimate_json(drift.missing),
        "reference_missing": drift.reference_missing,
        "bins": [
            {"bin": name, "loans": loans, "reference": share}
            for name, loans, share in zip(drift.bins, drift.counts, drift.reference, strict=True)
        ],
        "strange": [{"value": value, "loans": loans} for value, loans in drift.outside_reference],
    }


def _estimate_json(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else estimate._asdict()


def _drift(
    counting: BinCounter, counts: Counts, i: int, reference_loans: int, missing: float
) -> Drift:
    """Compute the drift of the column at position `i`.

    `missing` is the reference's share of missing values.
    """
    bin_counts, shares = np.array(counts.bins[i]), counting.shares[i]
    column_psi = psi(bin_counts, shares, reference_loans)
    assert column_psi is not None  # noqa: S101  there are loans on both sides
    outside = sorted(counts.strange[i].items(), key=lambda item: (-item[1], item[0]))
    return Drift(
        name=counting.names[i],
        bins=counting.bins[i].names,
        counts=bin_counts.tolist(),
        reference=shares.tolist(),
        psi=column_psi,
        missing=Estimate.of_share(int(bin_counts[-1]), int(bin_counts.sum())),
        reference_missing=missing,
        outside_reference=outside[:_MAX_VALUES],
    )
