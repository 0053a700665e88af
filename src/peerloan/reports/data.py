"""The data of a version's report: `report.json` in its bundle, from which the HTML is rendered.

Training fills it. Rates and calibration figures are of loans that the version was not fitted on,
margins are calibrated, and intervals have 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from peerloan.model import Calibration, Policy, TradeOff
from peerloan.registry import Manifest, TrainedOn
from peerloan.registry.manifest import decode
from peerloan.reports.charts import Line
from peerloan.reports.score_points import Points, ScoreLine
from peerloan.stats.measures import Rate

REPORT_FILE = "report.json"


class CalibrationFigures(msgspec.Struct, frozen=True):
    """How calibrated probabilities are, in bins of about equal size and over all loans.

    `slope` and `intercept` are those of the outcome regressed on the margin (1 and 0 are perfect),
    `error` is the expected calibration error.
    """

    expected: tuple[float, ...]
    observed: tuple[float, ...]
    loans: tuple[int, ...]
    slope: float
    intercept: float
    error: float
    brier: float

    @property
    def mean_expected(self) -> float:
        """The mean probability of all loans."""
        return float(np.average(self.expected, weights=self.loans))

    @property
    def mean_observed(self) -> float:
        """The late rate of all loans."""
        return float(np.average(self.observed, weights=self.loans))

    @property
    def bins(self) -> list[tuple[float, Rate]]:
        """For each bin the mean probability, and the late rate with its interval."""
        return [
            (expected, Rate.of(round(observed * loans), loans))
            for expected, observed, loans in zip(
                self.expected, self.observed, self.loans, strict=True
            )
        ]


class TrialFigures(msgspec.Struct, frozen=True):
    """A trial of the search: mean figures over its folds and their standard errors.

    `settings` is its settings in words, `values` without the resampling.
    """

    candidate: str
    settings: str
    values: str
    resampling: str
    loans: int
    folds: int
    mean: Mapping[str, float]
    error: Mapping[str, float]
    is_chosen: bool = False
    is_reported: bool = False


class ResamplingComparison(msgspec.Struct, frozen=True):
    """A candidate's best trial with each resampling, on the same loans and folds.

    `gains` are the gain in AUC over no resampling, and its standard error.
    """

    candidate: str
    loans: int
    best: Mapping[str, TrialFigures]
    gains: Mapping[str, tuple[float, float]]


class CalibratedTrial(msgspec.Struct, frozen=True):
    """A trial before and after its calibration."""

    trial: TrialFigures
    before: CalibrationFigures
    after: CalibrationFigures


class ThresholdRow(msgspec.Struct, frozen=True):
    """What a threshold brings; `cost` is that of 1,000 loans, in false alarms."""

    row: TradeOff
    threshold: float
    lift: float
    cost: float
    is_chosen: bool


class BandRow(msgspec.Struct, frozen=True):
    """A band: its loans, what is expected of them, and their late rate; None of no loans."""

    band: str
    probabilities: str
    loans: int
    rate: Rate | None
    expected: float | None


class PolicyFigures(msgspec.Struct, frozen=True):
    """What the policy and other thresholds bring, the fewest flagged first.

    A missed late loan costs `ratio` false alarms; `is_default` if the policy sets no ratio itself.
    `never` and `always` are the costs of flagging no loan and every loan.
    """

    rows: tuple[ThresholdRow, ...]
    ratio: float
    is_default: bool
    never: float
    always: float
    bands: tuple[BandRow, ...]


class FoldFigures(msgspec.Struct, frozen=True):
    """Figures of a fold."""

    fold: int
    loans: int
    late: int
    auc: float
    interval: tuple[float, float]
    ks: float
    recall: float
    calibration: CalibrationFigures


class LaterFigures(msgspec.Struct, frozen=True):
    """Figures of the later book's loans, of which some are late and some are not."""

    metrics: Mapping[str, float]
    auc_interval: tuple[float, float]
    calibration: CalibrationFigures


class LaterBook(msgspec.Struct, frozen=True):
    """A book of a later time; `figures` is None if all its loans have the same outcome."""

    book: str
    rate: Rate
    bands: tuple[BandRow, ...]
    figures: LaterFigures | None


class Shape(msgspec.Struct, frozen=True):
    """How a scorecard's field moves the odds.

    `curve` are the odds over a number's values, None where no axis holds them. `against` is the
    factor by which the odds fall at most where, by the field's direction, they should rise.
    """

    name: str
    label: str
    unit: str
    is_number: bool
    is_percent: bool
    has_missing: bool
    riskier: str | None
    lines: tuple[ScoreLine, ...]
    curve: Line | None
    against: float

    @property
    def is_used(self) -> bool:
        """Whether any value changes the odds."""
        return any(line.odds != 1 for line in self.lines)


class ScorecardFigures(msgspec.Struct, frozen=True):
    """A scorecard for people: its base, the shape of every field, and whole points."""

    base: float
    shapes: tuple[Shape, ...]
    points: Points


class Share(msgspec.Struct, frozen=True):
    """`count` of `whole` loans, with the ends of Wilson's interval."""

    count: int
    whole: int
    share: float
    low: float
    high: float


class GroupFairness(msgspec.Struct, frozen=True):
    """How a group's loans are treated.

    `flagged` is the selection rate, the share of its loans called late; `true_positive` the share
    of its late loans that are, `false_positive` that of its loans on time. `ratio` is its share of
    loans that are not flagged, divided by that of the most favoured group, with `low` and `high` as
    the ends of its interval; None where a group has too few loans to be compared.
    """

    name: str
    kind: Literal["level", "others", "missing"]
    loans: int
    late: int
    flagged: Share
    true_positive: Share | None
    false_positive: Share | None
    too_few: bool
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


class Fairness(msgspec.Struct, frozen=True):
    """The groups of a column, largest first, the most favoured one, and the finding in words."""

    column: str
    groups: tuple[GroupFairness, ...]
    favoured: str | None
    finding: tuple[str, ...]


class ReportHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every report has: the version that it is of, and the policy that it was made under.

    `version` and `created` are set when the version has its name. A version that differs from
    another one by its policy alone keeps that one's report.
    """

    version: str = ""
    created: str = ""
    model: str
    candidate: str
    policy: Policy


class TrainingReport(ReportHead, frozen=True, kw_only=True, tag="training"):
    """How a candidate was searched, how good it is, and what it does.

    `candidates` are each candidate's best trial, `trial` is that of this one, `tried` are all.
    `curves` are named `roc` and `precision`.
    """

    label: str
    late: str
    horizon: tuple[int, int]
    fields: int
    trained_on: TrainedOn
    without_outcome: int
    doubts: tuple[str, ...]
    chosen: str
    why: str
    folds: tuple[FoldFigures, ...]
    trial: TrialFigures
    candidates: tuple[TrialFigures, ...]
    tried: tuple[TrialFigures, ...]
    resampling: tuple[ResamplingComparison, ...]
    auc_interval: tuple[float, float]
    curves: Mapping[str, tuple[Line, ...]]
    calibration: CalibrationFigures
    by_resampling: tuple[CalibratedTrial, ...]
    at_threshold: TradeOff
    thresholds: PolicyFigures
    scorecard: ScorecardFigures | None
    background_loans: int
    later: LaterBook | None
    fairness: tuple[Fairness, ...]

    @property
    def rate(self) -> Rate:
        """The training table's late rate."""
        return Rate.of(self.trained_on.late, self.trained_on.loans)


class RecalibrationReport(ReportHead, frozen=True, kw_only=True, tag="recalibration"):
    """What the recalibration of the version `base` on a newer book changed.

    `before` are the figures of the old version's margins, `after` the new one's, out of fold;
    `scale` leads from the one to the other.
    """

    base: str
    label: str
    late: str
    trained_on: TrainedOn
    book: TrainedOn
    doubts: tuple[str, ...]
    scale: Calibration
    before: CalibrationFigures
    after: CalibrationFigures
    auc: float
    auc_interval: tuple[float, float]
    at_threshold: TradeOff
    thresholds: PolicyFigures

    @property
    def rate(self) -> Rate:
        """The newer book's late rate."""
        return Rate.of(self.book.late, self.book.loans)


class PolicyReport(ReportHead, frozen=True, kw_only=True, tag="policy"):
    """The policy of a version made of `base`, which has no report data: an older release made it.

    `figures` are the recall and the share flagged at the threshold, as far as the version tells.
    `base_page` is the file that holds the page of `base`, if it has one.
    """

    base: str
    is_sample: bool
    figures: Mapping[str, float]
    base_page: str | None


Report = TrainingReport | RecalibrationReport | PolicyReport


def encode_report(report: Report, manifest: Manifest) -> str:
    """A new version's report as JSON, under the version's name."""
    named = msgspec.structs.replace(report, version=manifest.version, created=manifest.created)
    return msgspec.json.format(msgspec.json.encode(named), indent=1).decode()


def decode_report(content: str | bytes) -> Report:
    """The report that was encoded; raises BundleError."""
    data = content.encode() if isinstance(content, str) else content
    return decode(data, REPORT_FILE, Report)  # type: ignore[arg-type]  # a union of structs
