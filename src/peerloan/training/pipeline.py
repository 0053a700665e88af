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
from peerloan.model import Calibration, Policy, ReferenceProfile, Scorecard
from peerloan.model.onnx_model import OnnxModel
from peerloan.model.policy import DEFAULT_RATIO, check_aim
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
    FOLDS,
    QUICK_FOLDS,
    Progress,
    SearchResult,
    Trial,
    quick,
    read_grids,
    search,
)
from peerloan.training.table import LEAST_LOANS, OnTable, Table, TrainingError, read_table
from peerloan.training.trade_off import trade_off


@dataclass(frozen=True)
class Aim:
    """The aim of the threshold: `cost`, `capacity`, `recall` or `f2`, and its value."""

    name: str = "cost"
    value: float = DEFAULT_RATIO


@dataclass(frozen=True)
class PublishedCandidate:
    """A published candidate with its cross-validated figures, whether it was chosen, and why."""

    candidate: str
    version: str
    metrics: dict[str, float]
    chosen: bool
    why: str = ""


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

    `later` is a book of a later time, on which the versions are evaluated too; `groups` are columns
    for the fairness check; `fast` tries one setting of each candidate, in fewer folds. `on_table`
    is called with each table before fitting, and may raise an exception to refuse it. Nothing is
    published unless every candidate could be fitted.
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
    after = None if later is None else _read_later(later, definition, progress, table)
    if after is not None:
        on_table(after)
    grids = {name: grid for name, grid in read_grids().items() if name in candidates}
    threshold = Policy.by_cost(aim.value if aim.name == "cost" else DEFAULT_RATIO).threshold_margin
    grids, folds = (quick(grids), QUICK_FOLDS) if fast else (grids, FOLDS)
    found = search(table.loans, table.late, grids, threshold, progress, folds)
    drafts = []
    for trial, estimator in zip(found.best, _fit(found.best, table, progress), strict=True):
        progress(f"{trial.candidate}: judging and reporting", 0.0)
        drafts.append(_draft(trial, estimator, found, table, after, aim))
        progress(f"{trial.candidate}: judging and reporting", 1.0)
    published = []
    for trial, each in zip(found.best, drafts, strict=True):
        version = store.publish(each)
        chosen = trial is found.chosen
        why = found.why if chosen else ""
        published.append(
            PublishedCandidate(trial.candidate, version, each.manifest.metrics, chosen, why)
        )
    progress("publishing", 1.0)
    return sorted(published, key=lambda each: (not each.chosen, -each.metrics["auc"]))


def _read_later(later: Book, definition: Definition, progress: Progress, table: Table) -> Table:
    """Read a book of a later time without rows that equal training rows.

    A version knows the outcomes of those.
    """
    after = read_table(later, definition, progress)
    fresh = without_shared(table.loans, after.loans)
    shared = int((~fresh).sum())
    if not shared:
        return after
    late = after.late[fresh]
    if min(late.sum(), len(late) - late.sum()) < LEAST_LOANS:
        raise TrainingError(
            f"{later.name}: expected a book of other loans, given {shared:,} of {len(fresh):,} "
            "rows that equal one of the training table in every field"
        )
    doubt = Doubt(
        f"{shared:,} of {len(fresh):,} rows of the later book equal one of the training table in "
        "every field, many more than chance explains: they are left out of its figures",
        shared,
    )
    doubts = replace(after.doubts, doubts=(*after.doubts.doubts, doubt))
    return replace(after, loans=after.loans.take(fresh), late=late, doubts=doubts)


def _refuse_constants(loans: Loans, book: str) -> None:
    """Raise TrainingError if a column never varies, for example because of a default value.

    A version would use it as a feature without knowledge of any other value. A field that may be
    missing and always is gives no error: it is harmless.
    """
    constant = []
    for field, held in zip(
        loans.definition.fields, loans.take(np.arange(1)).rows()[0], strict=True
    ):
        column = loans.columns[field.name]
        values = column.codes if isinstance(column, TextColumn) else column
        if held is not None and (values == values[0]).all():
            constant.append(f"{field.name} ({show_value(held)})")
    if constant:
        raise TrainingError(
            f"{book}: expected values that differ, given the same one in every row of "
            f"{', '.join(constant)}; leave such a field out of the definition"
        )


def _fit(
    trials: Sequence[Trial], table: Table, progress: Progress
) -> Iterator[Scorecard | OnnxParts]:
    """Fit each trial's estimator on all loans, calibrate it, and compile it for deployment."""
    parts = {trial.candidate: 0.0 for trial in trials}

    lock = Lock()

    def tell(trial: Trial, done: float) -> None:
        with lock:
            parts[trial.candidate] = done
            progress("fitting the best settings on all loans", sum(parts.values()) / len(parts))

    def fit(trial: Trial) -> Scorecard | OnnxParts:
        candidate = CANDIDATES[trial.candidate]
        fitted = candidate(
            table.loans, table.late, trial.settings, lambda done: tell(trial, 0.9 * done)
        )
        scale = fit_calibration(trial.margins, table.late)
        estimator = _calibrated(fitted.compile(table.loans), scale)
        tell(trial, 1.0)
        return estimator

    return parallel.parallel_map(fit, trials)


def _draft(
    trial: Trial,
    estimator: Scorecard | OnnxParts,
    found: SearchResult,
    table: Table,
    after: Table | None,
    aim: Aim,
) -> Draft:
    margins = trial.calibrated
    offered = trade_off(margins, table.late)
    try:
        policy = Policy.by_aim(aim.name, aim.value, offered)
    except ValueError as error:
        raise TrainingError(f"{trial.candidate}: {error}") from None
    # At the policy's own threshold, which may differ from the search's.
    at_policy = trial.at_threshold(policy.threshold_margin, table.late)
    metrics = {name: at_policy.mean(name) for name in FIGURES}
    intervals = {name: at_policy.interval(name) for name in FIGURES}
    judged_later = None
    if after is not None:
        judged_later = LaterBookScores(
            after.book, _margins(estimator, after.loans, table), after.late
        )
        seen = performance_figures(after.late, judged_later.margins, policy.threshold_margin)
        metrics |= {f"later_{name}": value for name, value in seen.items()}
        intervals["later_auc"] = auc_interval(after.late, seen["auc"])
    study = CandidateResult(
        definition=table.loans.definition,
        trained_on=table.trained_on,
        found=found,
        trial=trial,
        margins=margins,
        late=table.late,
        fold=trial.fold,
        estimator=estimator,
        policy=policy,
        trade_off=offered,
        metrics=metrics,
        intervals=intervals,
        later=judged_later,
        groups=table.groups,
        doubts=(*table.doubts.texts, *(() if after is None else after.doubts.texts)),
        without_outcome=table.without_outcome,
    )
    return draft(
        candidate=trial.candidate,
        definition=table.loans.definition,
        estimator=estimator,
        policy=policy,
        # Out of fold: a model is more certain about loans that it was fitted on than about later
        # ones.
        profile=ReferenceProfile.of(table.loans, table.late, logistic(margins)),
        trained_on=table.trained_on,
        validation=ValidationFigures(metrics, intervals, _scores(found), offered),
        libraries=libraries(),
        write_documents=new_version_documents(table.loans.definition, training_report(study)),
    )


def _calibrated(estimator: Scorecard | OnnxParts, scale: Calibration) -> Scorecard | OnnxParts:
    """Apply a calibration: in the tables of a scorecard, beside the graph of an ONNX estimator."""
    if isinstance(estimator, Scorecard):
        return rescaled(estimator, scale.slope, scale.intercept)
    return OnnxParts(estimator.graph, estimator.encoding, scale)


def _margins(estimator: Scorecard | OnnxParts, loans: Loans, table: Table) -> Numbers:
    """Compute margins (n,) of the deployed form."""
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


def _scores(found: SearchResult) -> tuple[CandidateScore, ...]:
    return tuple(
        CandidateScore(
            trial.candidate,
            str(trial.settings),
            {name: trial.mean(name) for name in FIGURES},
            {name: trial.error(name) for name in FIGURES},
        )
        for trial in found.best
    )


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that a model is made with."""
    names = ("numpy", "onnx", "onnxruntime", "optbinning", "scikit-learn", "xgboost-cpu")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
