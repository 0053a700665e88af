"""The result of training one candidate: the input of its report, card and manifest."""

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
    """Results on a later book: calibrated margins, outcomes, and the book's name."""

    book: str
    margins: Numbers
    late: Numbers


@dataclass(frozen=True)
class CandidateResult:
    """One candidate after its search, its calibration and its final fit.

    `margins` (n,) are out of fold and calibrated on the other folds, `late` (n,) is 1 for each late
    loan, `fold` (n,) numbers each loan's fold; `estimator` is the deployed form, calibrated;
    `doubts` are the doubts about the tables' values.
    """

    definition: Definition
    trained_on: TrainedOn
    found: SearchResult
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
