"""Makes the data of a training report from a candidate's training result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Field
from peerloan.model import LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.onnx_model import background_size
from peerloan.reports.charts import Line
from peerloan.reports.policy_figures import ScoredOutcomes, at_policy, band_rows, policy_figures
from peerloan.reports.report_json import (
    CalibratedTrial,
    FoldFigures,
    LaterBook,
    LaterFigures,
    ResamplingComparison,
    ScorecardFigures,
    Shape,
    TrainingReport,
    TrialFigures,
)
from peerloan.reports.score_points import as_points, exact_lines
from peerloan.stats.calibration import reliability
from peerloan.stats.discrimination import auc_interval
from peerloan.stats.measures import Rate
from peerloan.training.candidate_result import CandidateResult
from peerloan.training.evaluation import FIGURES, performance_figures
from peerloan.training.fairness import check_fairness
from peerloan.training.search import Trial, auc_gain

_POINTS_OF_A_CURVE = 200


def training_report(result: CandidateResult) -> TrainingReport:
    """Make the report's data, still without the version's name."""
    trial, chosen, policy = result.trial, result.search.chosen, result.policy
    scored = ScoredOutcomes(result.margins, result.late)
    # The trials on most loans are first, sorted by AUC.
    tried = sorted(result.search.tried, key=lambda other: (-other.loans, -other.mean("auc")))
    definition, trained_on = result.definition, result.trained_on
    later = _later(result)
    return TrainingReport(
        model=definition.model,
        candidate=trial.candidate,
        policy=policy,
        label=definition.label.column,
        late=str(definition.label.late),
        horizon=definition.roles.horizon,
        fields=len(definition.fields),
        trained_on=trained_on,
        without_outcome=result.without_outcome,
        doubts=result.doubts,
        chosen=chosen.candidate,
        why=result.search.why,
        folds=_folds(result),
        trial=_trial_figures(trial, trial, chosen),
        candidates=tuple(_trial_figures(best, trial, chosen) for best in result.search.best),
        tried=tuple(_trial_figures(other, trial, chosen) for other in tried),
        resampling=_resampling(tried),
        auc_interval=result.intervals.get("auc") or auc_interval(result.late, trial.mean("auc")),
        curves=_curves(result),
        calibration=trial.after,
        by_resampling=_by_resampling(trial, tried, chosen),
        at_threshold=at_policy(policy, scored),
        thresholds=policy_figures(policy, result.trade_off, scored),
        scorecard=_scorecard(result.estimator, definition, policy)
        if isinstance(result.estimator, Scorecard)
        else None,
        background_loans=background_size(len(definition.fields)),
        later=later,
        fairness=tuple(
            check_fairness(
                group.column, group.values, policy.late_many(result.margins), result.late
            )
            for group in result.groups
        ),
    )


def _trial_figures(trial: Trial, reported: Trial, chosen: Trial) -> TrialFigures:
    values = trial.settings.values
    return TrialFigures(
        candidate=trial.candidate,
        settings=str(trial.settings),
        values=", ".join(f"{key}={value}" for key, value in values.items()),
        resampling=trial.settings.resampling,
        loans=trial.loans,
        folds=len(trial.by_fold),
        mean={name: trial.mean(name) for name in FIGURES},
        error={name: trial.error(name) for name in FIGURES},
        is_chosen=trial is chosen,
        is_reported=trial is reported,
    )


def _resampling(tried: Sequence[Trial]) -> tuple[ResamplingComparison, ...]:
    """Compare each candidate's best AUC by resampling, on the same loans and folds."""
    rows = []
    for candidate in dict.fromkeys(trial.candidate for trial in tried):
        best: dict[int, dict[str, Trial]] = {}
        for trial in tried:
            if trial.candidate == candidate:
                best.setdefault(trial.loans, {}).setdefault(trial.settings.resampling, trial)
        # Compare as many resamplings as possible, and those on as many loans as possible.
        size, row = max(best.items(), key=lambda item: (len(item[1]), item[0]))
        if len(row) < 2 or "none" not in row:
            continue
        none = row["none"]
        rows.append(
            ResamplingComparison(
                candidate,
                size,
                best={how: _trial_figures(trial, none, none) for how, trial in row.items()},
                gains={how: auc_gain(row[how], none) for how in sorted(row.keys() - {"none"})},
            )
        )
    return tuple(rows)


def _by_resampling(
    reported: Trial, tried: Sequence[Trial], chosen: Trial
) -> tuple[CalibratedTrial, ...]:
    """Return the reported trial, and the candidate's best trial with each other resampling."""
    best = {reported.settings.resampling: reported}
    for trial in tried:
        if trial.candidate == reported.candidate:
            best.setdefault(trial.settings.resampling, trial)
    return tuple(
        CalibratedTrial(
            _trial_figures(trial, reported, chosen),
            trial.before,
            trial.after,
        )
        for trial in best.values()
    )


def _curves(result: CandidateResult) -> dict[str, tuple[Line, ...]]:
    """Compute the ROC and precision-recall curves of the training table, and of a later book."""
    books = [("cross-validated", ScoredOutcomes(result.margins, result.late))]
    if result.later is not None and 0 < result.later.late.sum() < len(result.later.late):
        books.append(("later book", ScoredOutcomes(result.later.margins, result.later.late)))
    roc, precision = zip(*(_book_curves(name, scored) for name, scored in books), strict=True)
    return {"roc": roc, "precision": precision}


def _book_curves(name: str, scored: ScoredOutcomes) -> tuple[Line, Line]:
    margins, late = scored.margins, scored.late
    order = np.argsort(-margins, kind="stable")
    # A possible threshold is at the last loan of each margin.
    ends = np.append(np.flatnonzero(np.diff(margins[order])), len(order) - 1)
    flagged, late_flagged = ends + 1.0, np.cumsum(late[order])[ends]
    n_late = float(late.sum())
    rows = np.unique(np.linspace(0, len(ends) - 1, _POINTS_OF_A_CURVE).round().astype(np.int64))
    false_positive = (flagged - late_flagged)[rows] / (len(late) - n_late)
    roc = Line(
        name, (0.0, *false_positive.tolist()), (0.0, *(late_flagged[rows] / n_late).tolist())
    )
    # The precision of a few loans is mostly chance: a curve that started there would hide the rest.
    rows = rows[flagged[rows] >= min(len(late), max(30, 5 * len(late) / n_late))]
    recall, precision = late_flagged[rows] / n_late, late_flagged[rows] / flagged[rows]
    return roc, Line(name, tuple(recall.tolist()), tuple(precision.tolist()))


def _folds(result: CandidateResult) -> tuple[FoldFigures, ...]:
    rows = []
    for number, by_fold in enumerate(result.trial.by_fold):
        in_fold = result.fold == number
        margins, late = result.margins[in_fold], result.late[in_fold]
        rows.append(
            FoldFigures(
                fold=number + 1,
                loans=len(late),
                late=int(late.sum()),
                auc=by_fold["auc"],
                interval=auc_interval(late, by_fold["auc"]),
                ks=by_fold["ks"],
                recall=at_policy(result.policy, ScoredOutcomes(margins, late)).recall,
                calibration=reliability(margins, late),
            )
        )
    return tuple(rows)


def _later(result: CandidateResult) -> LaterBook | None:
    """Compute the later book's figures; ranking and calibration need both outcomes."""
    if result.later is None:
        return None
    margins, late = result.later.margins, result.later.late
    later_figures = None
    if 0 < late.sum() < len(late):
        figures = performance_figures(late, margins, result.policy.threshold_margin)
        later_figures = LaterFigures(
            figures, auc_interval(late, figures["auc"]), reliability(margins, late)
        )
    return LaterBook(
        book=result.later.book,
        rate=Rate.of(int(late.sum()), len(late)),
        bands=band_rows(result.policy, ScoredOutcomes(margins, late)),
        figures=later_figures,
    )


def _scorecard(card: Scorecard, definition: Definition, policy: Policy) -> ScorecardFigures:
    shapes = tuple(
        Shape(
            name=field.name,
            label=field.label,
            unit=field.unit,
            is_number=field.is_number,
            is_percent=field.percent,
            has_missing=field.missing,
            riskier=field.riskier,
            lines=exact_lines(field, table),
            curve=_steps(table, field) if isinstance(table, NumberTable) else None,
            against=_against(field, table),
        )
        for field, table in zip(definition.fields, card.tables, strict=True)
    )
    return ScorecardFigures(card.base, shapes, as_points(card, definition, policy))


def _against(field: Field, table: NumberTable | LevelTable) -> float:
    """Return the largest factor by which the odds fall against the field's direction."""
    points: Sequence[float] = table.points
    if isinstance(table, LevelTable):
        point_of_level = dict(zip(table.levels, table.points, strict=True))
        points = [point_of_level.get(level, table.unseen) for level in field.levels]
    if field.riskier is None or not points:
        return 1.0
    rising = np.array(points if field.riskier == "higher" else points[::-1])
    return float(np.exp(np.max(np.maximum.accumulate(rising) - rising)))


def _steps(table: NumberTable, field: Field) -> Line | None:
    """Return a number's steps, with some room below the first edge and above the last edge.

    It is None if an axis can't have such a range.
    """
    low, high = (table.edges[0], table.edges[-1]) if table.edges else (0.0, 1.0)
    seen = field.seen_range or (-math.inf, math.inf)
    # Extend to the range of the loans, unless a few extreme values would compress the others.
    reach = 0.5 * (high - low) or 0.1 * abs(high) or 1.0
    ends = (max(low - reach, min(low, seen[0])), min(high + reach, max(high, seen[1])))
    if not ends[0] < ends[1] < math.inf or math.isinf(ends[1] - ends[0]):
        return None
    odds: npt.NDArray[np.float64] = np.exp(np.array([*table.points, table.points[-1]]))
    x = (ends[0], *table.edges, ends[1])
    return Line("odds", x, tuple(odds.tolist()), style="step")
