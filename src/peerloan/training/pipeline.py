"""The training run: read a book, search, calibrate, fit, and publish a bundle of each candidate."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from peerloan.book import Book, Doubt
from peerloan.formatting import show_value
from peerloan.loan import Definition, Loans, TextColumn
from peerloan.loan.spelling import normalize_levels
from peerloan.model import PlattCalibration, Policy, ReferenceProfile, Scorecard
from peerloan.model.onnx_model import OnnxModel
from peerloan.model.policy import check_aim
from peerloan.registry import (
    CandidateScore,
    Draft,
    OnnxParts,
    Store,
    ValidationFigures,
    draft,
)
from peerloan.reports.bundle_documents import new_version_documents
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import logistic
from peerloan.stats.discrimination import auc_interval
from peerloan.training import parallel
from peerloan.training.calibration import fit_calibration
from peerloan.training.candidate_result import CandidateResult, LaterBookScores
from peerloan.training.candidates import CANDIDATES
from peerloan.training.compile.scorecard import rescaled
from peerloan.training.evaluation import FIGURES, performance_figures
from peerloan.training.folds import without_shared
from peerloan.training.report_data import training_report
from peerloan.training.search import (
    QUICK_FOLDS,
    Progress,
    SearchPlan,
    SearchResult,
    Trial,
    first_settings,
    read_grids,
    search,
)
from peerloan.training.table import LEAST_LOANS, OnTable, Table, TrainingError, read_table
from peerloan.training.trade_off import trade_off


@dataclass(frozen=True)
class Aim:
    """The aim of the threshold and its value (see `Policy.by_aim`)."""

    name: str = "balanced"
    value: float = 0.0


@dataclass(frozen=True)
class PublishedCandidate:
    """A published candidate with its cross-validated figures, and whether it was chosen.

    `why` is the reason for the choice, empty for the other candidates.
    """

    candidate: str
    version: str
    metrics: dict[str, float]
    is_chosen: bool
    why: str = ""


@dataclass(frozen=True)
class _TrainingRun:
    """The common input of all candidates' drafts: the tables, the search, and the aim."""

    table: Table
    later_table: Table | None
    search: SearchResult
    aim: Aim

    @property
    def doubts(self) -> tuple[str, ...]:
        later_doubts = () if self.later_table is None else self.later_table.doubts.texts
        return (*self.table.doubts.texts, *later_doubts)


def train(
    book: Book,
    definition: Definition,
    store: Store,
    candidates: Sequence[str] = tuple(CANDIDATES),
    *,
    aim: Aim = Aim(),
    later: Book | None = None,
    groups: Sequence[str] = (),
    fast: bool = False,
    progress: Progress = lambda _what, _done: None,
    on_table: OnTable = lambda _table: None,
) -> list[PublishedCandidate]:
    """Search, calibrate, fit and publish each candidate; returns the chosen one first.

    `later` is a book of a later time, on which the versions are evaluated too. `groups` are columns
    for the fairness check. `fast` tries one setting of each candidate, in fewer folds. `on_table`
    is called with each table before fitting, and may raise an exception to refuse it. Nothing is
    published unless every candidate could be fitted. Raises TrainingError, BookError and
    StoreError.
    """
    # Check before minutes of fitting.
    store.check_model(definition.model)
    try:
        check_aim(aim.name, aim.value)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    # A champion's definition may distinguish two spellings of a value, as its own table did.
    definition = normalize_levels(definition)
    table = read_table(book, definition, progress, groups)
    on_table(table)
    _refuse_constants(table.loans, book.name)
    later_table = None
    if later is not None:
        later_table = _read_later(later, definition, progress, table)
        on_table(later_table)
    result = search(
        table.loans,
        table.late,
        _search_plan(candidates, fast),
        _search_threshold(aim, table.late),
        progress,
    )
    drafts = _draft_all(_TrainingRun(table, later_table, result, aim), progress)
    published = _publish(store, result, drafts)
    progress("publishing", 1.0)
    return published


def _search_plan(candidates: Sequence[str], fast: bool) -> SearchPlan:
    grids = {name: grid for name, grid in read_grids().items() if name in candidates}
    return SearchPlan(first_settings(grids), QUICK_FOLDS) if fast else SearchPlan(grids)


def _search_threshold(aim: Aim, late: Numbers) -> float:
    """Return the threshold of the search's figures: the aim's, if it needs no trade-off table.

    Else it is the threshold of the default aim.
    """
    if aim.name == "cost":
        return Policy.by_cost(aim.value).threshold_margin
    return Policy.balanced(float(late.mean())).threshold_margin


def _draft_all(run: _TrainingRun, progress: Progress) -> list[Draft]:
    """Fit and draft the best trial of each candidate, in their order."""
    drafts = []
    trials = run.search.best
    for trial, estimator in zip(trials, _fit(trials, run.table, progress), strict=True):
        step = f"{trial.candidate}: evaluating and reporting"
        progress(step, 0.0)
        drafts.append(_draft(trial, estimator, run))
        progress(step, 1.0)
    return drafts


def _publish(
    store: Store, result: SearchResult, drafts: Sequence[Draft]
) -> list[PublishedCandidate]:
    """Publish the drafts of the best trials; returns the chosen one first, then by AUC."""
    published = []
    for trial, new_draft in zip(result.best, drafts, strict=True):
        version = store.publish(new_draft)
        is_chosen = trial is result.chosen
        published.append(
            PublishedCandidate(
                trial.candidate,
                version,
                new_draft.manifest.metrics,
                is_chosen,
                result.why if is_chosen else "",
            )
        )
    return sorted(
        published, key=lambda candidate: (not candidate.is_chosen, -candidate.metrics["auc"])
    )


def _read_later(later: Book, definition: Definition, progress: Progress, table: Table) -> Table:
    """Read a book of a later time, without the rows that equal rows of the training table.

    The version was fitted on the outcomes of those rows.
    """
    later_table = read_table(later, definition, progress)
    is_new = without_shared(table.loans, later_table.loans)
    shared = int((~is_new).sum())
    if not shared:
        return later_table
    late = later_table.late[is_new]
    if min(late.sum(), len(late) - late.sum()) < LEAST_LOANS:
        raise TrainingError(
            f"{later.name}: expected a book of other loans, given {shared:,} of {len(is_new):,} "
            "rows that equal a row of the training table in every field; choose a book of loans "
            "that were not trained on"
        )
    doubt = Doubt(
        f"{shared:,} of {len(is_new):,} rows of the later book equal a row of the training table "
        "in every field, many more than chance explains; they are left out of its figures",
        shared,
    )
    doubts = replace(later_table.doubts, doubts=(*later_table.doubts.doubts, doubt))
    return replace(later_table, loans=later_table.loans.take(is_new), late=late, doubts=doubts)


def _refuse_constants(loans: Loans, book: str) -> None:
    """Raise TrainingError if a column never varies, for example because of a default value.

    A version would use it as a feature, though it was never fitted on another value. A field that
    may be missing, and always is, is harmless and raises no error.
    """
    constant = []
    first_row = loans.take(np.arange(1)).rows()[0]
    for field, value in zip(loans.definition.fields, first_row, strict=True):
        column = loans.columns[field.name]
        values = column.codes if isinstance(column, TextColumn) else column
        if value is not None and (values == values[0]).all():
            constant.append(f"{field.name} ({show_value(value)})")
    if constant:
        raise TrainingError(
            f"{book}: expected values that differ, given the same one in every row of "
            f"{', '.join(constant)}; remove such a field from the definition"
        )


def _fit(
    trials: Sequence[Trial], table: Table, progress: Progress
) -> Iterator[Scorecard | OnnxParts]:
    """Fit each trial's estimator on all loans, calibrate it, and compile it for deployment."""
    done_by_candidate = {trial.candidate: 0.0 for trial in trials}
    lock = Lock()

    def report(trial: Trial, done: float) -> None:
        with lock:
            done_by_candidate[trial.candidate] = done
            progress(
                "fitting the best settings on all loans",
                sum(done_by_candidate.values()) / len(done_by_candidate),
            )

    def fit(trial: Trial) -> Scorecard | OnnxParts:
        candidate = CANDIDATES[trial.candidate]
        fitted = candidate(
            table.loans, table.late, trial.settings, lambda done: report(trial, 0.9 * done)
        )
        scale = fit_calibration(trial.margins, table.late)
        estimator = _calibrated(fitted.compile(table.loans), scale)
        report(trial, 1.0)
        return estimator

    return parallel.parallel_map(fit, trials)


def _draft(trial: Trial, estimator: Scorecard | OnnxParts, run: _TrainingRun) -> Draft:
    """Draft the bundle of a candidate with its report."""
    table = run.table
    result = _candidate_result(trial, estimator, run)
    return draft(
        candidate=trial.candidate,
        definition=result.definition,
        estimator=estimator,
        policy=result.policy,
        # Out of fold: a model is more certain about loans that it was fitted on than about later
        # ones.
        profile=ReferenceProfile.of(table.loans, table.late, logistic(result.margins)),
        trained_on=table.trained_on,
        validation=ValidationFigures(
            result.metrics, result.intervals, _scores(run.search), result.trade_off
        ),
        libraries=libraries(),
        write_documents=new_version_documents(result.definition, training_report(result)),
    )


def _candidate_result(
    trial: Trial, estimator: Scorecard | OnnxParts, run: _TrainingRun
) -> CandidateResult:
    """Choose the candidate's policy, and compute its figures at that policy's threshold."""
    table, aim = run.table, run.aim
    thresholds = trade_off(trial.calibrated, table.late)
    try:
        policy = Policy.by_aim(aim.name, aim.value, thresholds)
    except ValueError as error:
        raise TrainingError(f"{trial.candidate}: {error}") from None
    # The policy's threshold may differ from the search's.
    at_policy = trial.at_threshold(policy.threshold_margin, table.late)
    metrics = {name: at_policy.mean(name) for name in FIGURES}
    intervals = {name: at_policy.interval(name) for name in FIGURES}
    later_scores = None
    if run.later_table is not None:
        later_scores = _later_scores(estimator, run.later_table, table)
        later_figures = performance_figures(
            later_scores.late, later_scores.margins, policy.threshold_margin
        )
        metrics |= {f"later_{name}": value for name, value in later_figures.items()}
        intervals["later_auc"] = auc_interval(later_scores.late, later_figures["auc"])
    return CandidateResult(
        definition=table.loans.definition,
        trained_on=table.trained_on,
        search=run.search,
        trial=trial,
        margins=trial.calibrated,
        late=table.late,
        fold=trial.fold,
        estimator=estimator,
        policy=policy,
        trade_off=thresholds,
        metrics=metrics,
        intervals=intervals,
        later=later_scores,
        groups=table.groups,
        doubts=run.doubts,
        without_outcome=table.without_outcome,
    )


def _later_scores(
    estimator: Scorecard | OnnxParts, later_table: Table, table: Table
) -> LaterBookScores:
    margins = _margins(estimator, later_table.loans, table)
    return LaterBookScores(later_table.book, margins, later_table.late)


def _calibrated(estimator: Scorecard | OnnxParts, scale: PlattCalibration) -> Scorecard | OnnxParts:
    """Apply a calibration to a scorecard's tables, or store it with an ONNX estimator's graph."""
    if isinstance(estimator, Scorecard):
        return rescaled(estimator, scale.slope, scale.intercept)
    return OnnxParts(estimator.graph, estimator.encoding, scale)


def _margins(estimator: Scorecard | OnnxParts, loans: Loans, table: Table) -> Numbers:
    """Compute margins (n,) with the deployed form of the estimator."""
    if isinstance(estimator, Scorecard):
        return estimator.margins(loans)
    model = OnnxModel(
        estimator.graph,
        estimator.encoding,
        table.loans.definition,
        table.loans.take(np.arange(1)),  # its reasons are not used
        "",
        estimator.calibration,
    )
    return model.margins(loans)


def _scores(result: SearchResult) -> tuple[CandidateScore, ...]:
    return tuple(
        CandidateScore(
            trial.candidate,
            str(trial.settings),
            {name: trial.mean(name) for name in FIGURES},
            {name: trial.error(name) for name in FIGURES},
        )
        for trial in result.best
    )


def libraries() -> dict[str, str]:
    """Return the versions of Python and of the libraries that make a model."""
    names = ("numpy", "onnx", "onnxruntime", "optbinning", "scikit-learn", "xgboost-cpu")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
