"""The result of training one candidate, from which its report and manifest are made."""

from __future__ import annotations

from dataclasses import dataclass

from peerloan.loan import Definition
from peerloan.model import OperatingPoint, Policy, Scorecard
from peerloan.registry import OnnxParts, TrainedOn
from peerloan.stats.arrays import Codes, Numbers
from peerloan.training.search import SearchResult, Trial
from peerloan.training.table import Group


@dataclass(frozen=True)
class LaterBookScores:
    """A later book's name, its calibrated margins (n,) and its outcomes (n,)."""

    book: str
    margins: Numbers
    late: Numbers


@dataclass(frozen=True)
class CandidateResult:
    """One candidate after its search, its calibration and its final fit.

    `margins` (n,) are out of fold and calibrated on the other folds, `late` (n,) is 1 for each late
    loan, and `fold` (n,) is the fold of each loan. `estimator` is the calibrated form that is
    deployed. `doubts` are warnings about the tables' values. `without_outcome` counts the rows
    that were left out.
    """

    definition: Definition
    trained_on: TrainedOn
    search: SearchResult
    trial: Trial
    margins: Numbers
    late: Numbers
    fold: Codes
    estimator: Scorecard | OnnxParts
    policy: Policy
    trade_off: tuple[OperatingPoint, ...]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    later: LaterBookScores | None = None
    groups: tuple[Group, ...] = ()
    doubts: tuple[str, ...] = ()
    without_outcome: int = 0
