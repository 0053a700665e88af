"""Recalibration: a new version from recent outcomes that only shifts and scales the log-odds."""

from __future__ import annotations

import msgspec

from peerloan.book import Book
from peerloan.loan import Loans
from peerloan.model import Calibration, Policy, Scorecard
from peerloan.model.reference_profile import ReferenceProfile
from peerloan.registry import Bundle, OnnxParts, Store, ValidationFigures, draft
from peerloan.reports.bundle_documents import new_version_documents
from peerloan.reports.policy_figures import ScoredOutcomes, at_policy, policy_figures
from peerloan.reports.report_json import RecalibrationReport
from peerloan.stats.calibration import logistic, reliability
from peerloan.stats.discrimination import auc_interval
from peerloan.training.calibration import cross_fitted, fit_calibration, is_informative
from peerloan.training.compile.scorecard import rescaled
from peerloan.training.evaluation import performance_figures
from peerloan.training.folds import equal_groups, stratified
from peerloan.training.pipeline import Aim, PublishedCandidate, libraries
from peerloan.training.report_data import calibration_figures
from peerloan.training.search import Progress
from peerloan.training.table import OnTable, Table, TrainingError, read_table
from peerloan.training.trade_off import trade_off

_FOLDS = 5


def recalibrate(
    version: str,
    book: Book,
    store: Store,
    progress: Progress = lambda _what, _done: None,
    aim: Aim | None = None,
    on_table: OnTable = lambda _table: None,
) -> PublishedCandidate:
    """Publish a version that ranks loans as `version` does, with probabilities that fit `book`.

    Reasons keep their order and their reference; the policy keeps its aim unless another is given.
    Figures are computed on the book's loans, each calibrated without its own fold. `on_table` is
    called with the book's table first, and may raise an exception to refuse it.
    """
    bundle = store.load(version)
    table = read_table(book, bundle.definition, progress)
    on_table(table)
    loans = Loans(bundle.definition, table.loans.columns, table.loans.size)
    raw, _ = bundle.score_many(loans)
    fold = stratified(table.late, _FOLDS, 0, equal_groups(loans, table.late))
    margins = cross_fitted(raw, table.late, fold)
    offered = trade_off(margins, table.late)
    before = bundle.manifest
    aim = aim or Aim(before.policy.aim, before.policy.aim_value)
    try:
        policy = Policy.by_aim(aim.name, aim.value, offered)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    scale = fit_calibration(raw, table.late)
    if not is_informative(scale):
        raise TrainingError(
            f"{book.name}: its late loans are not those that {version} takes for risky, so that no "
            "shift and scale of its log-odds fits them; train a version on newer loans instead"
        )
    found = performance_figures(table.late, margins, policy.threshold_margin)
    intervals = {"auc": auc_interval(table.late, found["auc"])}
    measured = ReferenceProfile.of(loans, table.late, logistic(margins))
    made = draft(
        candidate=before.candidate,
        definition=bundle.definition,
        estimator=_rescaled(bundle, store, scale),
        policy=policy,
        # Reasons keep their reference and the columns too; the probability is the newer book's.
        profile=msgspec.structs.replace(
            bundle.profile, late=measured.late, probability=measured.probability
        ),
        trained_on=before.trained_on,
        validation=ValidationFigures(found, intervals, before.candidates, offered),
        libraries=libraries(),
        recalibrated_on=table.trained_on,
        write_documents=new_version_documents(
            bundle.definition,
            recalibration_report(
                bundle,
                table,
                scale,
                before=ScoredOutcomes(raw, table.late),
                after=ScoredOutcomes(margins, table.late),
                policy=policy,
            ),
        ),
    )
    return PublishedCandidate(before.candidate, store.publish(made), found, chosen=True)


def recalibration_report(
    bundle: Bundle,
    table: Table,
    scale: Calibration,
    *,
    before: ScoredOutcomes,
    after: ScoredOutcomes,
    policy: Policy,
) -> RecalibrationReport:
    """Make the report's data without the new version's name.

    `before` are the old version's margins on the newer book, `after` the new one's, out of fold.
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
        before=calibration_figures(reliability(before.margins, late)),
        after=calibration_figures(reliability(after.margins, late)),
        auc=auc,
        auc_interval=auc_interval(late, auc),
        at_threshold=at_policy(policy, after),
        thresholds=policy_figures(policy, trade_off(after.margins, late), after),
    )


def _rescaled(bundle: Bundle, store: Store, scale: Calibration) -> Scorecard | OnnxParts:
    if isinstance(bundle.model, Scorecard):
        return rescaled(bundle.model, scale.slope, scale.intercept)
    parts = store.onnx_parts(bundle.version)
    old = parts.calibration
    both = Calibration(scale.slope * old.slope, scale.slope * old.intercept + scale.intercept)
    return OnnxParts(parts.graph, parts.encoding, both)
