"""Render a report's data as an HTML page that loads no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from peerloan.formatting import (
    join_words,
    percent,
    plural,
    show_interval,
    show_rate,
    signed,
)
from peerloan.model.policy import operating_point
from peerloan.registry import Manifest
from peerloan.reports import charts
from peerloan.reports.aims import AIMS_NOTE, AimRow, compare_aims, cost_ratio
from peerloan.reports.charts import Line
from peerloan.reports.model_card import (
    INTENDED_USE,
    band_ranges,
    figure_name,
    policy_in_words,
    window,
)
from peerloan.reports.report_json import (
    FoldFigures,
    RecalibrationReport,
    Report,
    Shape,
    TrainingReport,
)
from peerloan.reports.score_points import ODDS, SCORE, TO_DOUBLE
from peerloan.reports.templating import render
from peerloan.stats.calibration import Reliability

FIGURES = ("auc", "log_loss", "recall", "average_precision", "ks", "gini", "brier")
# Most bars of a category in a chart.
_MOST_BARS = 25


def report_page(report: Report, manifest: Manifest) -> str:
    """Render the report page of the version of this manifest.

    If only the policy was changed, the report is that of the base version, and a notice below the
    heading states it.
    """
    page = partial(
        render,
        report=report,
        notice=_notice(report, manifest),
        policy_in_words=policy_in_words(report.policy),
        aims=_aims(report, manifest),
        aims_note=AIMS_NOTE,
        ratio=cost_ratio(report.policy),
        interval=show_interval,
        percent=percent,
        plural=plural,
        show_rate=show_rate,
        signed=signed,
    )
    if isinstance(report, TrainingReport):
        return page("training.html.j2", **_training_values(report))
    if isinstance(report, RecalibrationReport):
        chart = reliability_chart([("before", report.before), ("after", report.after)])
        return page("recalibration.html.j2", reliability_chart=chart)
    return page("policy.html.j2", bands=band_ranges(report.policy))


def _aims(report: Report, manifest: Manifest) -> list[AimRow]:
    """Compare the aim of the report's policy with the other aims."""
    policy, trade_off = report.policy, manifest.trade_off
    if isinstance(report, TrainingReport | RecalibrationReport):
        return compare_aims(policy, report.at_threshold, trade_off)
    return compare_aims(policy, operating_point(policy, trade_off), trade_off)


def _notice(report: Report, manifest: Manifest) -> str | None:
    if manifest.version == report.version:
        return None
    return (
        f"The policy was changed after this report was written for {report.version}. "
        f"{policy_in_words(manifest.policy)} Threshold, bands, flagged loans and recall in this "
        "report are those of the earlier policy; the model card has the new one."
    )


def _training_values(report: TrainingReport) -> dict[str, Any]:
    """Prepare the values that the training template needs besides the report's data."""
    books = [("cross-validated", report.calibration)]
    if report.later is not None and report.later.figures is not None:
        books.append(("later book", report.later.figures.calibration))
    scorecard = report.scorecard
    return {
        "intended_use": INTENDED_USE,
        "summary": _summary(report),
        "figures": FIGURES,
        "figure_name": figure_name,
        "resampling_findings": _resampling_findings(report),
        "roc_chart": _roc_chart(report.curves["roc"]),
        "precision_chart": _precision_chart(report.curves["precision"], report.rate.rate),
        "reliability_chart": reliability_chart(books),
        "fold_chart": _fold_chart(report.folds, report.trial.mean["auc"]),
        "shape_charts": {} if scorecard is None else _shape_charts(scorecard.shapes),
        "scale": {"score": SCORE, "odds": ODDS, "double": TO_DOUBLE},
        "window": window(report.horizon),
    }


def _summary(report: TrainingReport) -> list[str]:
    """Describe the choice of the candidate and its performance in sentences."""
    trial, why = report.trial, report.why
    if trial.is_chosen:
        sentences = [f"The candidate {trial.candidate} was chosen: {why}."]
    else:
        sentences = [
            f"This is the report of {trial.candidate}, which was not chosen.",
            f"{why[:1].upper()}{why[1:]}.",
        ]
    auc = trial.mean["auc"]
    sentences.append(
        f"{trial.candidate} ranks a late loan above an on-time loan in {percent(auc)} of all such "
        f"pairs (AUC {auc:.4f}, standard error {trial.error['auc']:.4f}). These are loans that it "
        "was not fitted on."
    )
    if report.later is not None and report.later.figures is not None:
        low, high = report.later.figures.auc_interval
        sentences.append(
            f"On the later book {report.later.book} its AUC is "
            f"{report.later.figures.metrics['auc']:.4f} ({low:.3f}–{high:.3f})."
        )
    return sentences


def _resampling_findings(report: TrainingReport) -> list[str]:
    """Describe the resamplings that changed the AUC by more than a standard error."""
    better: list[str] = []
    worse: list[str] = []
    for row in report.resampling:
        for how, (gain, error) in row.gains.items():
            if abs(gain) > error:
                sign = "+" if gain > 0 else ""
                change = f"{how} with {row.candidate} ({sign}{signed(gain, 4)})"
                (better if gain > 0 else worse).append(change)
    sentences = [
        f"{direction} than no resampling by more than one standard error: "
        f"{join_words(changes, most=12)}."
        for direction, changes in (("Better", better), ("Worse", worse))
        if changes
    ]
    if report.resampling and not better:
        sentences.insert(0, "Neither class weights nor SMOTE made any candidate clearly better.")
    return sentences


def reliability_chart(figures: Sequence[tuple[str, Reliability]]) -> Markup:
    """Plot late rates against probabilities; the diagonal is perfect calibration."""
    series = [
        dots(
            name,
            [expected for expected, _ in calibration.bins],
            [(rate.rate, rate.low, rate.high) for _, rate in calibration.bins],
        )
        for name, calibration in figures
    ]
    return charts.lines(
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
    """Make dots at (value, low, high) for each x."""
    values, low, high = zip(*y, strict=True)
    return Line(name, tuple(x), values, low, high, style="dots")


def _roc_chart(curves: Sequence[Line]) -> Markup:
    return charts.lines(
        "ROC curve",
        curves,
        x_label="of loans on time flagged",
        y_label="of late loans flagged (recall)",
        x_scale="percent",
        y_scale="percent",
        x_range=(0, 1),
        y_range=(0, 1.01),
        diagonal=True,
    )


def _precision_chart(curves: Sequence[Line], rate: float) -> Markup:
    return charts.lines(
        "Precision-recall curve",
        curves,
        x_label="recall",
        y_label="precision",
        x_scale="percent",
        y_scale="percent",
        x_range=(0, 1),
        y_range=(0, 1.05 * max(max(line.y, default=0) for line in curves)),
        level=rate,
    )


def _fold_chart(folds: Sequence[FoldFigures], mean: float) -> Markup:
    line = dots(
        "AUC", [fold.fold for fold in folds], [(fold.auc, *fold.interval) for fold in folds]
    )
    low = math.floor(20 * min(line.low or (0.5,))) / 20
    high = math.ceil(20 * max(line.high or (1.0,))) / 20
    return charts.lines(
        "AUC by fold",
        [line],
        x_label="fold",
        y_label="AUC",
        x_scale="count",
        y_range=(low, high),
        level=mean,
    )


def _shape_charts(shapes: Sequence[Shape]) -> dict[str, Markup]:
    """Plot each field that the model uses and an axis can show, all on one vertical scale."""
    most = 1.05 * max(line.odds for shape in shapes for line in shape.lines)
    return {
        shape.name: _number_shape(shape, shape.curve, most)
        if shape.curve is not None
        else _level_shape(shape, most)
        for shape in shapes
        if shape.is_used and (shape.curve is not None or not shape.is_number)
    }


def _level_shape(shape: Shape, most: float) -> Markup:
    lines = shape.lines[:_MOST_BARS]
    return charts.bars(
        f"Odds by {shape.name}",
        [line.values for line in lines],
        [line.odds for line in lines],
        line=1,
        line_label="average",
        tones=["late" if line.odds > 1 else "accent" for line in lines],
        most=most,
        x_label="times the average loan's odds",
    )


def _number_shape(shape: Shape, curve: Line, most: float) -> Markup:
    return charts.lines(
        f"Odds by {shape.name}",
        [curve],
        x_label="" if shape.is_percent else shape.unit,
        y_label="times the average loan's odds",
        x_scale="percent" if shape.is_percent else "number",
        x_range=(curve.x[0], curve.x[-1]),
        y_range=(0, most),
        level=1,
    )
