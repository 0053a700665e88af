"""The training report: one self-contained page that a credit-risk team could sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Field
from peerloan.model import LevelTable, NumberTable, Scorecard
from peerloan.model.onnx_model import background_size
from peerloan.registry.packaging import CREATED_MARK, VERSION_MARK
from peerloan.reports import plots
from peerloan.reports.model_card import INTENDED_USE, figure_name, policy_in_words, window
from peerloan.reports.plots import Line
from peerloan.reports.score_points import ODDS, SCORE, TO_DOUBLE, as_points, exact_lines
from peerloan.reports.sections import (
    Judgement,
    at_policy,
    band_rows,
    dots,
    policy_part,
    rates,
    reliability_plot,
)
from peerloan.reports.templating import render
from peerloan.stats.discrimination import auc_interval
from peerloan.stats.measures import Rate
from peerloan.training.candidate_result import Study
from peerloan.training.evaluation import figures
from peerloan.training.fairness import check_fairness
from peerloan.training.search import Trial, auc_gain
from peerloan.training.wording import interval, loans, percent, several, show_rate, signed

FIGURES = ("auc", "log_loss", "recall", "average_precision", "ks", "gini", "brier")
# Points of a curve, and bars of a category, that a plot shows.
_CURVE, _MOST_BARS = 200, 25


def training_report(study: Study) -> str:
    """The report of one candidate as HTML; it asks for nothing from anywhere."""
    policy = study.policy
    flagged = policy.late_many(study.margins)
    books = _books(study)
    # Those on the most loans first, and among them the best.
    tried = sorted(study.found.tried, key=lambda trial: (-trial.loans, -trial.mean("auc")))
    folds, later = _folds(study), _later(study)
    scorecard = study.estimator if isinstance(study.estimator, Scorecard) else None
    return render(
        "training.html.j2",
        study=study,
        version=VERSION_MARK,
        created=CREATED_MARK,
        intended_use=INTENDED_USE,
        trained=study.trained_on,
        rate=Rate.of(int(study.late.sum()), len(study.late)),
        auc=study.intervals.get("auc") or auc_interval(study.late, study.trial.mean("auc")),
        at_threshold=at_policy(policy, books[0]),
        summary=_summary(study, later),
        figures=FIGURES,
        figure_name=figure_name,
        resampled=_resampled(tried),
        tried=tried,
        curves=_curves(books),
        calibration=study.trial.after,
        rates=rates,
        by_resampling=_by_resampling(study.trial, tried),
        reliability_plot=reliability_plot(books),
        policy=policy_part(policy, study.trade_off, books[0]),
        policy_in_words=policy_in_words(policy),
        folds=folds,
        fold_plot=_fold_plot(folds, study.trial.mean("auc")),
        scorecard=scorecard,
        shapes=_shapes(scorecard, study.definition) if scorecard else (),
        points=as_points(scorecard, study.definition, policy) if scorecard else None,
        scale={"score": SCORE, "odds": ODDS, "double": TO_DOUBLE},
        background=background_size(len(study.definition.fields)),
        later=later,
        fairness=[
            check_fairness(group.column, group.values, flagged, study.late)
            for group in study.groups
        ],
        window=window(study.definition),
        percent=percent,
        interval=interval,
        loans=loans,
        show_rate=show_rate,
        signed=signed,
    )


def _summary(study: Study, later: dict[str, Any] | None) -> list[str]:
    """What was chosen and why, and how good it is, in sentences."""
    own, chosen = study.trial, study.found.chosen
    why = study.found.why
    said = [f"The candidate {chosen.candidate} was chosen: {why}."]
    if own is not chosen:
        said = [
            f"This report is of {own.candidate}, which was not chosen.",
            f"{why[:1].upper()}{why[1:]}.",
        ]
    auc = own.mean("auc")
    said.append(
        f"Of a late loan and one on time, {own.candidate} takes the late one for the riskier in "
        f"{percent(auc)} of all pairs (AUC {auc:.4f}, standard error {own.error('auc'):.4f}), on "
        "loans that it was not fitted on."
    )
    if later is not None and later["figures"]:
        low, high = later["interval"]
        said.append(
            f"On the later book {later['book']} its AUC is {later['figures']['auc']:.4f} "
            f"({low:.3f}–{high:.3f})."
        )
    return said


def _resampled(tried: Sequence[Trial]) -> dict[str, Any]:
    """What resampling did: each candidate's best AUC by resampling, on the same loans and folds."""
    rows: list[dict[str, Any]] = []
    said: dict[str, list[str]] = {"Better than none": [], "Worse than none": []}
    for candidate in dict.fromkeys(trial.candidate for trial in tried):
        best: dict[int, dict[str, Trial]] = {}
        for trial in tried:
            if trial.candidate == candidate:
                best.setdefault(trial.loans, {}).setdefault(trial.settings.resampling, trial)
        # As many resamplings as possible, then on as many loans as possible.
        size, row = max(best.items(), key=lambda each: (len(each[1]), each[0]))
        if len(row) < 2 or "none" not in row:
            continue
        rows.append({"candidate": candidate, "loans": size, "best": row})
        for how in sorted(row.keys() - {"none"}):
            gain, error = auc_gain(row[how], row["none"])
            if abs(gain) > error:
                what = "Better than none" if gain > 0 else "Worse than none"
                sign = "+" if gain > 0 else ""
                said[what].append(f"{how} with {candidate} ({sign}{signed(gain, 4)})")
    sentences = [
        f"{what} by more than one standard error: {several(each, most=12)}."
        for what, each in said.items()
        if each
    ]
    if rows and not said["Better than none"]:
        sentences.insert(0, "Neither class weights nor SMOTE made any candidate clearly better.")
    return {"rows": rows, "said": sentences}


def _by_resampling(own: Trial, tried: Sequence[Trial]) -> list[Trial]:
    """The candidate's own trial, and its best with each other resampling."""
    best = {own.settings.resampling: own}
    for trial in tried:
        if trial.candidate == own.candidate:
            best.setdefault(trial.settings.resampling, trial)
    return list(best.values())


def _books(study: Study) -> list[Judgement]:
    """The training table, and the later book if it can be judged."""
    books = [Judgement("cross-validated", study.margins, study.late)]
    if study.later is not None and 0 < study.later.late.sum() < len(study.later.late):
        books.append(Judgement("later book", study.later.margins, study.later.late))
    return books


def _curves(books: Sequence[Judgement]) -> dict[str, str]:
    roc, recall = [], []
    for each in books:
        name, margins, late = each.name, each.margins, each.late
        order = np.argsort(-margins, kind="stable")
        # Where a threshold can lie: at the last loan of each margin.
        ends = np.append(np.flatnonzero(np.diff(margins[order])), len(order) - 1)
        flagged, found, bad = ends + 1.0, np.cumsum(late[order])[ends], float(late.sum())
        rows = np.unique(np.linspace(0, len(ends) - 1, _CURVE).round().astype(np.int64))
        wrong = (flagged - found)[rows] / (len(late) - bad)
        roc.append(Line(name, [0, *wrong.tolist()], [0, *(found[rows] / bad).tolist()]))
        # Among a few loans the precision is chance; a curve that starts there shows nothing else.
        rows = rows[flagged[rows] >= min(len(late), max(30, 5 * len(late) / bad))]
        precision = found[rows] / flagged[rows]
        recall.append(Line(name, (found[rows] / bad).tolist(), precision.tolist()))
    line = partial(plots.lines, x_scale="percent", y_scale="percent", x_range=(0, 1))
    highest = max(max(each.y, default=0) for each in recall)
    return {
        "roc": line(
            "ROC curve",
            roc,
            x_label="of loans on time flagged",
            y_label="of late loans flagged (recall)",
            y_range=(0, 1.01),
            diagonal=True,
        ),
        "precision": line(
            "Precision-recall curve",
            recall,
            x_label="recall",
            y_label="precision",
            y_range=(0, 1.05 * highest),
            level=float(books[0].late.mean()),
        ),
    }


def _folds(study: Study) -> list[dict[str, Any]]:
    rows = []
    for number, by_fold in enumerate(study.trial.by_fold):
        own = study.fold == number
        judged = Judgement("fold", study.margins[own], study.late[own])
        rows.append(
            {
                "fold": number + 1,
                "loans": len(judged.late),
                "late": int(judged.late.sum()),
                "auc": by_fold["auc"],
                "interval": auc_interval(judged.late, by_fold["auc"]),
                "ks": by_fold["ks"],
                "recall": at_policy(study.policy, judged).recall,
                "calibration": judged.reliability,
            }
        )
    return rows


def _fold_plot(rows: list[dict[str, Any]], mean: float) -> str:
    places = [row["fold"] for row in rows]
    line = dots("AUC", places, [(row["auc"], *row["interval"]) for row in rows])
    low = math.floor(20 * min(line.low or (0.5,))) / 20
    high = math.ceil(20 * max(line.high or (1.0,))) / 20
    return plots.lines(
        "AUC by fold",
        [line],
        x_label="fold",
        y_label="AUC",
        x_scale="count",
        y_range=(low, high),
        level=mean,
    )


def _later(study: Study) -> dict[str, Any] | None:
    """The later book's judgement; without figures if not both late loans and others are in it."""
    if study.later is None:
        return None
    margins, late = study.later.margins, study.later.late
    judgement = Judgement("later book", margins, late)
    found: dict[str, Any] = {
        "book": study.later.book,
        "rate": Rate.of(int(late.sum()), len(late)),
        "bands": band_rows(study.policy, judgement),
        "figures": None,
    }
    if 0 < late.sum() < len(late):
        judged = figures(late, margins, study.policy.threshold_margin)
        found |= {
            "figures": judged,
            "interval": auc_interval(late, judged["auc"]),
            "calibration": judgement.reliability,
        }
    return found


def _shapes(scorecard: Scorecard, definition: Definition) -> list[dict[str, Any]]:
    """How each field moves the odds: a plot and every exact line, all on one vertical scale."""
    every = [
        exact_lines(field, table)
        for field, table in zip(definition.fields, scorecard.tables, strict=True)
    ]
    most = 1.05 * max(line.odds for lines in every for line in lines)
    shapes = []
    for field, table, lines in zip(definition.fields, scorecard.tables, every, strict=True):
        title = f"Odds by {field.name}"
        if isinstance(table, NumberTable):
            plot = _steps(title, table, field, most)
        else:
            drawn = lines[:_MOST_BARS]
            plot = plots.bars(
                title,
                [line.values for line in drawn],
                [line.odds for line in drawn],
                line=1,
                line_label="average",
                tones=["late" if line.odds > 1 else "accent" for line in drawn],
                most=most,
                x_label="times the average loan's odds",
            )
        used = any(line.odds != 1 for line in lines)
        against = _against(field, table)
        shapes.append(
            {"field": field, "plot": plot, "lines": lines, "used": used, "against": against}
        )
    return shapes


def _against(field: Field, table: NumberTable | LevelTable) -> float:
    """By what factor the odds fall at most where, by the field's direction, they should rise."""
    points: Sequence[float] = table.points
    if isinstance(table, LevelTable):
        known = dict(zip(table.levels, table.points, strict=True))
        points = [known.get(level, table.unseen) for level in field.levels]
    if field.riskier is None or not points:
        return 1.0
    rising = np.array(points if field.riskier == "higher" else points[::-1])
    return float(np.exp(np.max(np.maximum.accumulate(rising) - rising)))


def _steps(title: str, table: NumberTable, field: Field, most: float) -> str:
    """A number's steps, from somewhat below the first edge to somewhat above the last."""
    low, high = (table.edges[0], table.edges[-1]) if table.edges else (0.0, 1.0)
    seen = field.seen_range or (-math.inf, math.inf)
    # To where the loans are, unless a few far ones would squeeze all others together.
    reach = 0.5 * (high - low) or 0.1 * abs(high) or 1.0
    ends = (max(low - reach, min(low, seen[0])), min(high + reach, max(high, seen[1])))
    if not ends[0] < ends[1] < math.inf or math.isinf(ends[1] - ends[0]):
        return ""  # no axis holds it
    points: npt.NDArray[np.float64] = np.exp(np.array([*table.points, table.points[-1]]))
    return plots.lines(
        title,
        [Line("odds", [ends[0], *table.edges, ends[1]], points.tolist(), style="step")],
        x_label="" if field.percent else field.unit,
        y_label="times the average loan's odds",
        x_scale="percent" if field.percent else "number",
        x_range=ends,
        y_range=(0, most),
        level=1,
    )
