"""Recalibration: publish a version whose log-odds are shifted and scaled to fit newer outcomes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from peerloan.book import Book
from peerloan.loan import Loans
from peerloan.model import PlattCalibration, Policy, Scorecard
from peerloan.model.reference_profile import ReferenceProfile
from peerloan.registry import Bundle, OnnxParts, Store, ValidationFigures, draft
from peerloan.reports.bundle_documents import new_version_documents
from peerloan.reports.policy_figures import ScoredOutcomes, at_policy, policy_figures
from peerloan.reports.report_json import RecalibrationReport
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import logistic, reliability
from peerloan.stats.discrimination import auc_interval
from peerloan.training.calibration import cross_fitted, fit_calibration, is_informative
from peerloan.training.compile.scorecard import rescaled
from peerloan.training.evaluation import performance_figures
from peerloan.training.folds import equal_groups, stratified
from peerloan.training.pipeline import Aim, PublishedCandidate, libraries
from peerloan.training.search import Progress
from peerloan.training.table import OnTable, Table, TrainingError, read_table
from peerloan.training.trade_off import trade_off

_FOLDS = 5


@dataclass(frozen=True)
class _NewScale:
    """A new scale of a version's log-odds, fitted on a book, and the margins before and after.

    `before` (n,) are the version's own margins; `after` (n,) are out of fold: each is scaled
    without its own fold.
    """

    scale: PlattCalibration
    before: Numbers
    after: Numbers


def recalibrate(
    version: str,
    book: Book,
    store: Store,
    progress: Progress = lambda _what, _done: None,
    aim: Aim | None = None,
    on_table: OnTable = lambda _table: None,
) -> PublishedCandidate:
    """Publish a version that ranks loans as `version` does, with probabilities that fit `book`.

    Reasons keep their order and their reference. The policy keeps its aim, unless `aim` is another
    one. Figures are computed on the book's loans, each calibrated without its own fold. `on_table`
    is called with the book's table first, and may raise an exception to refuse it. Raises
    TrainingError, BookError, StoreError and BundleError.
    """
    bundle = store.load(version)
    table = read_table(book, bundle.definition, progress)
    on_table(table)
    fitted = _fit_scale(bundle, table, book.name)
    old = bundle.manifest
    aim = aim or Aim(old.policy.aim, old.policy.aim_value)
    thresholds = trade_off(fitted.after, table.late)
    try:
        policy = Policy.by_aim(aim.name, aim.value, thresholds)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    metrics = performance_figures(table.late, fitted.after, policy.threshold_margin)
    intervals = {"auc": auc_interval(table.late, metrics["auc"])}
    recalibrated = draft(
        candidate=old.candidate,
        definition=bundle.definition,
        estimator=_rescaled(bundle, store, fitted.scale),
        policy=policy,
        profile=_profile(bundle, table, fitted.after),
        trained_on=old.trained_on,
        validation=ValidationFigures(metrics, intervals, old.candidates, thresholds),
        libraries=libraries(),
        recalibrated_on=table.trained_on,
        write_documents=new_version_documents(
            bundle.definition,
            recalibration_report(
                bundle,
                table,
                fitted.scale,
                before=ScoredOutcomes(fitted.before, table.late),
                after=ScoredOutcomes(fitted.after, table.late),
                policy=policy,
            ),
        ),
    )
    return PublishedCandidate(old.candidate, store.publish(recalibrated), metrics, is_chosen=True)


def _fit_scale(bundle: Bundle, table: Table, book: str) -> _NewScale:
    """Fit shift and scale to the book's outcomes, on all loans and out of fold.

    Raises TrainingError if the version's ranking has no information about the outcomes.
    """
    loans = _version_loans(bundle, table)
    before, _ = bundle.score_many(loans)
    scale = fit_calibration(before, table.late)
    if not is_informative(scale):
        raise TrainingError(
            f"{book}: {bundle.version} does not rank its late loans as riskier than the others, so "
            "no shift and scale of its log-odds fits them; train a version on newer loans instead"
        )
    fold = stratified(table.late, _FOLDS, 0, equal_groups(loans, table.late))
    after = cross_fitted(before, table.late, fold)
    return _NewScale(scale, before, after)


def _version_loans(bundle: Bundle, table: Table) -> Loans:
    """Return the table's loans under the version's own definition."""
    return Loans(bundle.definition, table.loans.columns, table.loans.size)


def _profile(bundle: Bundle, table: Table, margins: Numbers) -> ReferenceProfile:
    """Return the version's profile with the newer book's late rate and probabilities.

    The columns stay, because reasons keep their reference.
    """
    loans = _version_loans(bundle, table)
    newer = ReferenceProfile.of(loans, table.late, logistic(margins))
    return msgspec.structs.replace(bundle.profile, late=newer.late, probability=newer.probability)


def recalibration_report(
    bundle: Bundle,
    table: Table,
    scale: PlattCalibration,
    *,
    before: ScoredOutcomes,
    after: ScoredOutcomes,
    policy: Policy,
) -> RecalibrationReport:
    """Make the report's data, still without the new version's name.

    `before` are the old version's margins on the newer book, `after` the new version's margins out
    of fold.
    """
    definition, late = bundle.definition, table.late
    auc = performance_figures(late, after.margins, policy.threshold_margin)["auc"]
    return RecalibrationReport(
        model=definition.model,
        candidate=bundle.manifest.candidate,
        policy=policy,
        base=bundle.version,
        label=definition.label.column,
        late=str(definition.label.late),
        trained_on=bundle.manifest.trained_on,
        book=table.trained_on,
        doubts=tuple(table.doubts.texts),
        scale=scale,
        before=reliability(before.margins, late),
        after=reliability(after.margins, late),
        auc=auc,
        auc_interval=auc_interval(late, auc),
        at_threshold=at_policy(policy, after),
        thresholds=policy_figures(policy, trade_off(after.margins, late), after),
    )


def _rescaled(bundle: Bundle, store: Store, scale: PlattCalibration) -> Scorecard | OnnxParts:
    """Apply the new scale to the version's estimator, after its old calibration."""
    if isinstance(bundle.model, Scorecard):
        return rescaled(bundle.model, scale.slope, scale.intercept)
    parts = store.onnx_parts(bundle.version)
    old = parts.calibration
    both = PlattCalibration(scale.slope * old.slope, scale.slope * old.intercept + scale.intercept)
    return OnnxParts(parts.graph, parts.encoding, both)
