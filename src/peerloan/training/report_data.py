"""The data of a candidate's training report, made from its training result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Field
from peerloan.model import LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.onnx_model import background_size
from peerloan.reports.charts import Line
from peerloan.reports.policy_figures import ScoredOutcomes, at_policy, band_rows, policy_figures
from peerloan.reports.report_json import (
    CalibratedTrial,
    CalibrationFigures,
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
from peerloan.stats.calibration import Reliability, reliability
from peerloan.stats.discrimination import auc_interval
from peerloan.stats.measures import Rate
from peerloan.training.candidate_result import CandidateResult
from peerloan.training.evaluation import FIGURES, performance_figures
from peerloan.training.fairness import check_fairness
from peerloan.training.search import Trial, auc_gain

# Points of a curve.
_CURVE = 200


def training_report(study: CandidateResult) -> TrainingReport:
    """Make the report's data without the version's name."""
    own, chosen, policy = study.trial, study.search.chosen, study.policy
    scored = ScoredOutcomes(study.margins, study.late)
    # Trials on the most loans first, and among them the best.
    tried = sorted(study.search.tried, key=lambda trial: (-trial.loans, -trial.mean("auc")))
    definition, trained_on = study.definition, study.trained_on
    later = _later(study)
    return TrainingReport(
        model=definition.model,
        candidate=own.candidate,
        policy=policy,
        label=definition.label.column,
        late=str(definition.label.late),
        horizon=definition.roles.horizon,
        fields=len(definition.fields),
        trained_on=trained_on,
        without_outcome=study.without_outcome,
        doubts=study.doubts,
        chosen=chosen.candidate,
        why=study.search.why,
        folds=_folds(study),
        trial=_trial(own, own, chosen),
        candidates=tuple(_trial(trial, own, chosen) for trial in study.search.best),
        tried=tuple(_trial(trial, own, chosen) for trial in tried),
        resampling=_resampling(tried),
        auc_interval=study.intervals.get("auc") or auc_interval(study.late, own.mean("auc")),
        curves=_curves(study),
        calibration=calibration_figures(own.after),
        by_resampling=_by_resampling(own, tried, chosen),
        at_threshold=at_policy(policy, scored),
        thresholds=policy_figures(policy, study.trade_off, scored),
        scorecard=_scorecard(study.estimator, definition, policy)
        if isinstance(study.estimator, Scorecard)
        else None,
        background_loans=background_size(len(definition.fields)),
        later=later,
        fairness=tuple(
            check_fairness(group.column, group.values, policy.late_many(study.margins), study.late)
            for group in study.groups
        ),
    )


def calibration_figures(found: Reliability) -> CalibrationFigures:
    """Convert calibration figures to the report's structure."""
    return msgspec.convert(found, CalibrationFigures, from_attributes=True)


def _trial(trial: Trial, own: Trial, chosen: Trial) -> TrialFigures:
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
        is_reported=trial is own,
    )


def _resampling(tried: Sequence[Trial]) -> tuple[ResamplingComparison, ...]:
    """Compare each candidate's best AUC by resampling, on the same loans and folds."""
    rows = []
    for candidate in dict.fromkeys(trial.candidate for trial in tried):
        best: dict[int, dict[str, Trial]] = {}
        for trial in tried:
            if trial.candidate == candidate:
                best.setdefault(trial.loans, {}).setdefault(trial.settings.resampling, trial)
        # As many resamplings as possible, then on as many loans as possible.
        size, row = max(best.items(), key=lambda each: (len(each[1]), each[0]))
        if len(row) < 2 or "none" not in row:
            continue
        none = row["none"]
        rows.append(
            ResamplingComparison(
                candidate,
                size,
                best={how: _trial(trial, none, none) for how, trial in row.items()},
                gains={how: auc_gain(row[how], none) for how in sorted(row.keys() - {"none"})},
            )
        )
    return tuple(rows)


def _by_resampling(
    own: Trial, tried: Sequence[Trial], chosen: Trial
) -> tuple[CalibratedTrial, ...]:
    """Return the candidate's own trial, and its best with each other resampling."""
    best = {own.settings.resampling: own}
    for trial in tried:
        if trial.candidate == own.candidate:
            best.setdefault(trial.settings.resampling, trial)
    return tuple(
        CalibratedTrial(
            _trial(trial, own, chosen),
            calibration_figures(trial.before),
            calibration_figures(trial.after),
        )
        for trial in best.values()
    )


def _curves(study: CandidateResult) -> dict[str, tuple[Line, ...]]:
    """Compute the ROC and precision-recall curves of the training table, and of a later book."""
    books = [("cross-validated", ScoredOutcomes(study.margins, study.late))]
    if study.later is not None and 0 < study.later.late.sum() < len(study.later.late):
        books.append(("later book", ScoredOutcomes(study.later.margins, study.later.late)))
    roc, precision = zip(*(_book_curves(name, scored) for name, scored in books), strict=True)
    return {"roc": roc, "precision": precision}


def _book_curves(name: str, scored: ScoredOutcomes) -> tuple[Line, Line]:
    margins, late = scored.margins, scored.late
    order = np.argsort(-margins, kind="stable")
    # Possible thresholds: the last loan of each margin.
    ends = np.append(np.flatnonzero(np.diff(margins[order])), len(order) - 1)
    flagged, found, n_late = ends + 1.0, np.cumsum(late[order])[ends], float(late.sum())
    rows = np.unique(np.linspace(0, len(ends) - 1, _CURVE).round().astype(np.int64))
    wrong = (flagged - found)[rows] / (len(late) - n_late)
    roc = Line(name, (0.0, *wrong.tolist()), (0.0, *(found[rows] / n_late).tolist()))
    # The precision of a few loans is chance, and a curve that starts there shows nothing else.
    rows = rows[flagged[rows] >= min(len(late), max(30, 5 * len(late) / n_late))]
    recall, precision = found[rows] / n_late, found[rows] / flagged[rows]
    return roc, Line(name, tuple(recall.tolist()), tuple(precision.tolist()))


def _folds(study: CandidateResult) -> tuple[FoldFigures, ...]:
    rows = []
    for number, by_fold in enumerate(study.trial.by_fold):
        own = study.fold == number
        margins, late = study.margins[own], study.late[own]
        rows.append(
            FoldFigures(
                fold=number + 1,
                loans=len(late),
                late=int(late.sum()),
                auc=by_fold["auc"],
                interval=auc_interval(late, by_fold["auc"]),
                ks=by_fold["ks"],
                recall=at_policy(study.policy, ScoredOutcomes(margins, late)).recall,
                calibration=calibration_figures(reliability(margins, late)),
            )
        )
    return tuple(rows)


def _later(study: CandidateResult) -> LaterBook | None:
    """Compute the later book's figures; ranking and calibration only with both classes."""
    if study.later is None:
        return None
    margins, late = study.later.margins, study.later.late
    later_figures = None
    if 0 < late.sum() < len(late):
        found = performance_figures(late, margins, study.policy.threshold_margin)
        later_figures = LaterFigures(
            found, auc_interval(late, found["auc"]), calibration_figures(reliability(margins, late))
        )
    return LaterBook(
        book=study.later.book,
        rate=Rate.of(int(late.sum()), len(late)),
        bands=band_rows(study.policy, ScoredOutcomes(margins, late)),
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
    """Return the largest factor by which the odds fall where they should rise.

    They should rise by the field's direction.
    """
    points: Sequence[float] = table.points
    if isinstance(table, LevelTable):
        known = dict(zip(table.levels, table.points, strict=True))
        points = [known.get(level, table.unseen) for level in field.levels]
    if field.riskier is None or not points:
        return 1.0
    rising = np.array(points if field.riskier == "higher" else points[::-1])
    return float(np.exp(np.max(np.maximum.accumulate(rising) - rising)))


def _steps(table: NumberTable, field: Field) -> Line | None:
    """Return a number's steps, from somewhat below the first edge to somewhat above the last."""
    low, high = (table.edges[0], table.edges[-1]) if table.edges else (0.0, 1.0)
    seen = field.seen_range or (-math.inf, math.inf)
    # Extend to the loans' range, unless a few far ones would compress all others.
    reach = 0.5 * (high - low) or 0.1 * abs(high) or 1.0
    ends = (max(low - reach, min(low, seen[0])), min(high + reach, max(high, seen[1])))
    if not ends[0] < ends[1] < math.inf or math.isinf(ends[1] - ends[0]):
        return None  # no axis holds it
    odds: npt.NDArray[np.float64] = np.exp(np.array([*table.points, table.points[-1]]))
    x = (ends[0], *table.edges, ends[1])
    return Line("odds", x, tuple(odds.tolist()), style="step")
