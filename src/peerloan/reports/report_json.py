"""The data of a version's report: `report.json` in its bundle.

Training writes it, and the HTML page is rendered from it. Rates and calibration figures are those
of loans that the version was not fitted on. Margins are calibrated; intervals are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from peerloan.model import OperatingPoint, PlattCalibration, Policy
from peerloan.registry import Manifest, TrainedOn
from peerloan.registry.manifest import decode
from peerloan.reports.charts import Line
from peerloan.reports.score_points import Points, ScoreLine
from peerloan.stats.calibration import Reliability
from peerloan.stats.measures import Rate

REPORT_FILE = "report.json"


class TrialFigures(msgspec.Struct, frozen=True):
    """A trial of the search: mean figures over its folds and their standard errors.

    `settings` are its settings as text, `values` the same without the resampling.
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

    `gains` contains the gain in AUC over no resampling and its standard error.
    """

    candidate: str
    loans: int
    best: Mapping[str, TrialFigures]
    gains: Mapping[str, tuple[float, float]]


class CalibratedTrial(msgspec.Struct, frozen=True):
    """A trial before and after its calibration."""

    trial: TrialFigures
    before: Reliability
    after: Reliability


class ThresholdRow(msgspec.Struct, frozen=True):
    """The result of a threshold; `cost` is per 1,000 loans, in units of one false alarm."""

    row: OperatingPoint
    threshold: float
    lift: float
    cost: float
    is_chosen: bool


class BandRow(msgspec.Struct, frozen=True):
    """A band: its loans, their expected late rate, and the observed one (None without loans)."""

    band: str
    probabilities: str
    loans: int
    rate: Rate | None
    expected: float | None


class PolicyFigures(msgspec.Struct, frozen=True):
    """The policy's threshold compared with other thresholds, in ascending order of flagged loans.

    A missed late loan costs as much as `ratio` false alarms; `is_default` is true if the policy has
    no ratio. `never` and `always` are the costs of flagging no loan and all loans.
    """

    rows: tuple[ThresholdRow, ...]
    ratio: float
    is_default: bool
    never: float
    always: float
    bands: tuple[BandRow, ...]


class FoldFigures(msgspec.Struct, frozen=True):
    """Figures of one fold."""

    fold: int
    loans: int
    late: int
    auc: float
    interval: tuple[float, float]
    ks: float
    recall: float
    calibration: Reliability


class LaterFigures(msgspec.Struct, frozen=True):
    """Figures of a later book that has both late and on-time loans."""

    metrics: Mapping[str, float]
    auc_interval: tuple[float, float]
    calibration: Reliability


class LaterBook(msgspec.Struct, frozen=True):
    """A book of a later time; `figures` is None if all its loans have the same outcome."""

    book: str
    rate: Rate
    bands: tuple[BandRow, ...]
    figures: LaterFigures | None


class Shape(msgspec.Struct, frozen=True):
    """The effect of a scorecard's field on the odds.

    `curve` is the odds over a number's values, None if an axis can't show them. `against` is the
    largest factor by which the odds fall against the field's direction.
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
        """Whether the odds depend on the field."""
        return any(line.odds != 1 for line in self.lines)


class ScorecardFigures(msgspec.Struct, frozen=True):
    """A scorecard for people: its base, the shape of each field, and whole points."""

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
    """Selection and error rates of a group.

    `flagged` is the selection rate: the share of its loans predicted late. `true_positive` is the
    share of its late loans that are flagged, `false_positive` that of its on-time loans. `ratio` is
    its share of loans that are not flagged, divided by that of the most favoured group, with `low`
    and `high` as the ends of its interval; None if a group has too few loans for a comparison.
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
    """The common part of all reports: the version, and the policy that it was made with.

    `version` and `created` are empty until the version has a name. A version that differs from
    another one only in its policy has that version's report.
    """

    version: str = ""
    created: str = ""
    model: str
    candidate: str
    policy: Policy


class TrainingReport(ReportHead, frozen=True, kw_only=True, tag="training"):
    """The report of a trained candidate: its search, its performance, and its shape.

    `candidates` are the best trial of each candidate, `trial` is this version's, and
    `tried` are all trials. `curves` are named `roc` and `precision`.
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
    calibration: Reliability
    by_resampling: tuple[CalibratedTrial, ...]
    at_threshold: OperatingPoint
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
    """The effect of recalibrating the version `base` on a newer book.

    `before` are the figures of the old version's margins, `after` those of the new version's, out
    of fold. `scale` converts the old margins to the new ones.
    """

    base: str
    label: str
    late: str
    trained_on: TrainedOn
    book: TrainedOn
    doubts: tuple[str, ...]
    scale: PlattCalibration
    before: Reliability
    after: Reliability
    auc: float
    auc_interval: tuple[float, float]
    at_threshold: OperatingPoint
    thresholds: PolicyFigures

    @property
    def rate(self) -> Rate:
        """The newer book's late rate."""
        return Rate.of(self.book.late, self.book.loans)


class PolicyReport(ReportHead, frozen=True, kw_only=True, tag="policy"):
    """The report of a version with another policy, made from a version `base` without report data.

    `figures` are the recall and the share flagged at the threshold, if the version stores them.
    `base_page` is the file with the page of `base`, if it has one.
    """

    base: str
    is_sample: bool
    figures: Mapping[str, float]
    base_page: str | None


Report = TrainingReport | RecalibrationReport | PolicyReport


def encode_report(report: Report, manifest: Manifest) -> str:
    """Encode the report of a new version as JSON, with the version's name."""
    named = msgspec.structs.replace(report, version=manifest.version, created=manifest.created)
    return msgspec.json.format(msgspec.json.encode(named), indent=1).decode()


def decode_report(content: str | bytes) -> Report:
    """Decode a report. Raises BundleError."""
    data = content.encode() if isinstance(content, str) else content
    return decode(data, REPORT_FILE, Report)  # type: ignore[arg-type]  # a union of structs
