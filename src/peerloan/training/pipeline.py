"""The training run: read a book, search, calibrate, fit, and publish a bundle of each candidate."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np

from peerloan.book import (
    Book,
    BookDoubts,
    Doubt,
    DoubtCollector,
    EqualRows,
    Fingerprint,
    check_columns,
    join_loans,
    read_column,
    read_loans,
)
from peerloan.loan import Definition, Loans, TextColumn
from peerloan.loan.spelling import with_one_spelling
from peerloan.loan.text import counted, share_of, show_given
from peerloan.model import Policy, Profile, Scorecard
from peerloan.model.onnx_model import OnnxModel
from peerloan.model.policy import DEFAULT_RATIO, check_aim
from peerloan.registry import (
    Draft,
    OnnxParts,
    Score,
    Store,
    TrainedOn,
    ValidationFigures,
    draft,
)
from peerloan.reports.documents import new_version_documents
from peerloan.sample_data import ID_PREFIX
from peerloan.stats.arrays import Codes, Numbers
from peerloan.training import calibration, parallel
from peerloan.training.candidate_result import Group, Later, Study, trade_off
from peerloan.training.candidates import CANDIDATES
from peerloan.training.compile.scorecard import rescaled
from peerloan.training.evaluation import FIGURES, auc_interval, figures
from peerloan.training.folds import count_rarer, without_shared
from peerloan.training.report_data import training_report
from peerloan.training.search import (
    FOLDS,
    QUICK_FOLDS,
    Found,
    Progress,
    Trial,
    quick,
    read_grids,
    search,
)
from peerloan.training.seen import definition_as_seen

# Fewer of either kind, and held-out figures mean nothing.
LEAST_LOANS = 20
_LEAST_ROWS = 100


class TrainingError(ValueError):
    """A book that can't be trained on, and why."""


@dataclass(frozen=True)
class Aim:
    """What the threshold is for: `cost`, `capacity`, `recall` or `f2`, and its value."""

    name: str = "cost"
    value: float = DEFAULT_RATIO


@dataclass(frozen=True)
class Outcome:
    """A published candidate with its cross-validated figures; whether it was chosen, and why."""

    candidate: str
    version: str
    metrics: dict[str, float]
    chosen: bool
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A training table in memory: checked loans, 1 for each late one, and where they came from.

    `without_outcome` loans of the book are left out, because their outcome is not known yet.
    """

    book: str
    loans: Loans
    late: Numbers
    trained_on: TrainedOn
    doubts: BookDoubts
    without_outcome: int = 0
    groups: tuple[Group, ...] = ()

    def lines(self) -> list[str]:
        """What has to be known of the table: what late means, what is left out, and its doubts."""
        label = self.loans.definition.label
        late = int(self.late.sum())
        lines = [
            f"{self.book}: late is {show_given(label.late)} in {label.column}: {late:,} of "
            f"{counted(len(self.late), 'loan')} ({share_of(late, len(self.late))})"
        ]
        if self.without_outcome:
            rows = counted(self.without_outcome, "row")
            lines.append(f"note: left out, because they have no outcome yet: {rows}")
        return lines + self.doubts.lines()


OnTable = Callable[[Table], None]


def read_table(
    book: Book, definition: Definition, progress: Progress, groups: Sequence[str] = ()
) -> Table:
    """Read a whole book with its labels; a bad row raises TrainingError, one without an outcome is
    left out.

    `groups` are columns of the book, features or not, to check decisions by.
    """
    check_columns(definition, book, label=True)
    for name in groups:
        if name not in book.columns:
            raise TrainingError(f"{book.name}: no column {name!r} to group by")
    grouped: dict[str, list[str | None]] = {name: [] for name in groups}
    fingerprint, sample, without_outcome = Fingerprint(definition), False, 0
    doubts = DoubtCollector(book.name, definition)
    some_loans: list[Loans] = []
    labels: list[Codes] = []
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True, open_label=True)
        if batch.problems:
            bad = book.bad_row(batch.problems[0])
            raise TrainingError(f"{bad}; `peerloan check` names every bad row")
        doubts.add(batch)
        sample |= any((loan_id or "").startswith(ID_PREFIX) for loan_id in batch.ids or ())
        known = np.asarray(batch.labels) >= 0
        without_outcome += int(np.count_nonzero(~known))
        some_loans.append(batch.loans.take(known))
        labels.append(np.asarray(batch.labels)[known])
        fingerprint.update(some_loans[-1], labels[-1])
        for name, values in grouped.items():
            values += itertools.compress(read_column(part, name), known)
    late = np.concatenate(labels).astype(np.float64)
    left_out = f", and {without_outcome} without an outcome yet" if without_outcome else ""
    if len(late) < _LEAST_ROWS:
        raise TrainingError(
            f"{book.name}: expected at least {_LEAST_ROWS} loans, given {len(late)}{left_out}"
        )
    for name, count in (("late", late.sum()), ("on time", len(late) - late.sum())):
        if count < LEAST_LOANS:
            raise TrainingError(
                f"{book.name}: expected at least {LEAST_LOANS} loans that are {name}, "
                f"given {int(count)} of {len(late)}{left_out}"
            )
    loans = join_loans(some_loans)
    _refuse_repeated(EqualRows.of(loans, late), late, book.name)
    seen = definition_as_seen(loans)
    return Table(
        Path(book.name).name,
        Loans(seen, loans.columns, loans.size),
        late,
        TrainedOn(
            "built-in sample" if sample else Path(book.name).name,
            fingerprint.hexdigest(),
            len(late),
            int(late.sum()),
            sample,
        ),
        doubts.found(),
        without_outcome,
        tuple(Group(name, tuple(values)) for name, values in grouped.items()),
    )


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
) -> list[Outcome]:
    """Search, calibrate, fit and publish each candidate; gives the chosen one first.

    `later` is a book of a later time, on which the versions are judged too; `groups` are columns
    to check decisions by; `fast` tries one setting of each candidate, in fewer folds. `on_table` is
    called with each table before anything is fitted, and may refuse it by an exception. Nothing is
    published unless every candidate could be fitted.
    """
    # Before minutes of fitting.
    store.check_model(definition.model)
    try:
        check_aim(aim.name, aim.value)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    # A champion's may tell two spellings of a value apart, as its own table did.
    definition = with_one_spelling(definition)
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
    outcomes = []
    for trial, each in zip(found.best, drafts, strict=True):
        version = store.publish(each)
        chosen = trial is found.chosen
        why = found.why if chosen else ""
        outcomes.append(Outcome(trial.candidate, version, each.manifest.metrics, chosen, why))
    progress("publishing", 1.0)
    return sorted(outcomes, key=lambda outcome: (not outcome.chosen, -outcome.metrics["auc"]))


def _refuse_repeated(equal: EqualRows, late: Numbers, book: str) -> None:
    """Raise TrainingError if the rows of a kind are few loans, each many times."""
    if (groups := equal.groups()) is None:
        return
    count, kind = count_rarer(late, groups)
    if count < LEAST_LOANS:
        rows = int((late == (1 if kind == "late" else 0)).sum())
        raise TrainingError(
            f"{book}: expected at least {LEAST_LOANS} different loans that are {kind}, given "
            f"{count}: the other {rows - count:,} of their {rows:,} rows equal another one; "
            "train on the original table"
        )


def _read_later(later: Book, definition: Definition, progress: Progress, table: Table) -> Table:
    """A book of a later time, without rows that equal those that are trained on: of them a version
    knows the outcome.
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
    """Raise TrainingError if a column never varies, as where a default was written everywhere: a
    version would take it for a feature, and know nothing of any other value that it is served.

    A field that may be missing and always is says so itself, and harms nobody.
    """
    constant = []
    for field, held in zip(
        loans.definition.fields, loans.take(np.arange(1)).rows()[0], strict=True
    ):
        column = loans.columns[field.name]
        values = column.codes if isinstance(column, TextColumn) else column
        if held is not None and (values == values[0]).all():
            constant.append(f"{field.name} ({show_given(held)})")
    if constant:
        raise TrainingError(
            f"{book}: expected values that differ, given the same one in every row of "
            f"{', '.join(constant)}; leave such a field out of the definition"
        )


def _fit(
    trials: Sequence[Trial], table: Table, progress: Progress
) -> Iterator[Scorecard | OnnxParts]:
    """Each trial's estimator, fitted on all loans, calibrated and in its deployed form."""
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
        scale = calibration.Calibration.fit(trial.margins, table.late)
        estimator = _calibrated(fitted.compile(table.loans), scale)
        tell(trial, 1.0)
        return estimator

    return parallel.each(fit, trials)


def _draft(
    trial: Trial,
    estimator: Scorecard | OnnxParts,
    found: Found,
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
    # At the policy's own threshold, which may be another than the search's.
    at_policy = trial.judged_at(policy.threshold_margin, table.late)
    metrics = {name: at_policy.mean(name) for name in FIGURES}
    intervals = {name: at_policy.interval(name) for name in FIGURES}
    judged_later = None
    if after is not None:
        judged_later = Later(after.book, _margins(estimator, after.loans, table), after.late)
        seen = figures(after.late, judged_later.margins, policy.threshold_margin)
        metrics |= {f"later_{name}": value for name, value in seen.items()}
        intervals["later_auc"] = auc_interval(after.late, seen["auc"])
    study = Study(
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
        # Out of fold: a model is surer of loans that it was fitted on than of any later one.
        profile=Profile.of(table.loans, table.late, 1 / (1 + np.exp(-margins))),
        trained_on=table.trained_on,
        validation=ValidationFigures(metrics, intervals, _scores(found), offered),
        libraries=libraries(),
        write_documents=new_version_documents(table.loans.definition, training_report(study)),
    )


def _calibrated(
    estimator: Scorecard | OnnxParts, scale: calibration.Calibration
) -> Scorecard | OnnxParts:
    """For the scorecard it goes into the tables, for ONNX beside the graph."""
    if isinstance(estimator, Scorecard):
        return rescaled(estimator, scale.slope, scale.intercept)
    return OnnxParts(estimator.graph, estimator.encoding, scale)


def _margins(estimator: Scorecard | OnnxParts, loans: Loans, table: Table) -> Numbers:
    """Margins (n,) of the deployed form."""
    if isinstance(estimator, Scorecard):
        return estimator.margins(loans)
    model = OnnxModel(
        estimator.graph,
        estimator.encoding,
        table.loans.definition,
        table.loans.take(np.arange(1)),  # its reasons are not asked for
        "",
        estimator.calibration,
    )
    return model.margins(loans)


def _scores(found: Found) -> tuple[Score, ...]:
    return tuple(
        Score(
            trial.candidate,
            str(trial.settings),
            {name: trial.mean(name) for name in FIGURES},
            {name: trial.error(name) for name in FIGURES},
        )
        for trial in found.best
    )


def libraries() -> dict[str, str]:
    """The versions of what a model is made with."""
    names = ("numpy", "onnx", "onnxruntime", "optbinning", "scikit-learn", "xgboost-cpu")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
