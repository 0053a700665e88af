"""Drafts and manifests of versions that are not trained."""

from __future__ import annotations

import numpy as np

from peerloan.loan import Definition, Loans, parse_definition
from peerloan.model import NumberTable, OperatingPoint, Policy, ReferenceProfile, Scorecard
from peerloan.model.arithmetic import to_unit
from peerloan.registry import Draft, Manifest, TrainedOn, ValidationFigures, draft
from peerloan.stats.arrays import Numbers


def hand_made(
    definition: Definition,
    scorecard: Scorecard,
    loans: Loans,
    late: Numbers | None = None,
    policy: Policy | None = None,
) -> Draft:
    """A draft of a scorecard, as if trained on these loans, which are on time by default."""
    late = np.zeros(loans.size) if late is None else late
    return draft(
        candidate="hand-made",
        definition=definition,
        estimator=scorecard,
        policy=policy or Policy.by_cost(),
        profile=ReferenceProfile.of(loans, late, np.linspace(0.01, 0.4, loans.size)),
        trained_on=TrainedOn("made by hand", "0" * 64, loans.size, int(late.sum()), sample=False),
        validation=ValidationFigures({"auc": 0.75, "brier": 0.1}, {}, (), ()),
        libraries={},
    )


AGE_DEFINITION = parse_definition(
    """
model = "cars"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[[field]]
name = "age"
kind = "number"
label = "Age"
""",
    "cars.toml",
)


def age_loans(ages: Numbers) -> Loans:
    """Loans of AGE_DEFINITION with these ages."""
    return Loans(AGE_DEFINITION, {"age": ages}, len(ages))


def age_draft(log_odds: tuple[float, ...], policy: Policy) -> Draft:
    """A draft of a scorecard with these log-odds at ages below 1, below 2, and so on."""
    edges = tuple(map(float, range(1, len(log_odds))))
    points = tuple(float(to_unit(value)) for value in log_odds)
    profile = ReferenceProfile.of(
        age_loans(np.arange(5.0)), np.array([0.0, 1, 0, 1, 0]), np.full(5, 0.5)
    )
    return draft(
        candidate="additive",
        definition=AGE_DEFINITION,
        estimator=Scorecard(0.0, (NumberTable("age", edges, points, 0.0),)),
        policy=policy,
        profile=profile,
        trained_on=TrainedOn("cars.csv", "0" * 64, 5, 2, False),
        validation=ValidationFigures({"auc": 0.5}, {}, (), ()),
        libraries={},
    )


def report_manifest(
    trained_on: TrainedOn,
    policy: Policy,
    *,
    version: str = "additive-1",
    model: str = "cars",
    candidate: str = "additive",
    metrics: dict[str, float] | None = None,
    intervals: dict[str, tuple[float, float]] | None = None,
    trade_off: tuple[OperatingPoint, ...] = (),
) -> Manifest:
    """A manifest with all that a report page and a model card show."""
    return Manifest(
        format=1,
        arithmetic=1,
        version=version,
        model=model,
        candidate=candidate,
        kind="scorecard",
        created="2026-01-01T00:00:00+00:00",
        trained_on=trained_on,
        metrics=metrics or {},
        policy=policy,
        libraries={},
        golden=(),
        files={},
        intervals=intervals or {},
        trade_off=trade_off,
    )
