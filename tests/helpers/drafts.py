"""Versions that are made by hand."""

from __future__ import annotations

import numpy as np

from peerloan.loan import Definition, Loans
from peerloan.model import Policy, ReferenceProfile, Scorecard
from peerloan.registry import Draft, TrainedOn, ValidationFigures, draft
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
