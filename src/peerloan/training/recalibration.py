"""Recalibration: a new version from recent outcomes that only shifts and scales the log-odds."""

from __future__ import annotations

import msgspec

from peerloan.book import Book
from peerloan.loan import Loans
from peerloan.model import Calibration, Policy, Scorecard
from peerloan.model.reference_profile import Profile
from peerloan.registry import Bundle, Draft, Judged, OnnxParts, Store, draft
from peerloan.reports.model_card import model_card
from peerloan.reports.recalibration_report import Recalibrated, recalibration_report
from peerloan.reports.sections import Judgement
from peerloan.stats.calibration import logistic
from peerloan.stats.discrimination import auc_interval
from peerloan.training.calibration import cross_fitted, fit_calibration, is_informative
from peerloan.training.compile.scorecard import rescaled
from peerloan.training.evaluation import figures
from peerloan.training.folds import equal_groups, stratified
from peerloan.training.pipeline import Aim, PublishedCandidate, libraries
from peerloan.training.search import Progress
from peerloan.training.table import OnTable, TrainingError, read_table
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

    Reasons keep their order and what they compare with; the policy keeps its aim unless another
    is given. Figures are judged on the book's loans, each calibrated without its own fold.
    `on_table` is called with the book's table before, and may refuse it by an exception.
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
    found = figures(table.late, margins, policy.threshold_margin)
    intervals = {"auc": auc_interval(table.late, found["auc"])}
    measured = Profile.of(loans, table.late, logistic(margins))
    made = draft(
        candidate=before.candidate,
        definition=bundle.definition,
        estimator=_rescaled(bundle, store, scale),
        policy=policy,
        # What reasons compare with stays, and so do the columns; its own probability is the newer
        # book's.
        profile=msgspec.structs.replace(
            bundle.profile, late=measured.late, probability=measured.probability
        ),
        trained_on=before.trained_on,
        judged=Judged(found, intervals, before.candidates, offered),
        libraries=libraries(),
        documents={
            "report.html": recalibration_report(
                Recalibrated(
                    version=version,
                    candidate=before.candidate,
                    definition=bundle.definition,
                    trained_on=before.trained_on,
                    book=table.trained_on,
                    scale=scale,
                    before=Judgement("before", raw, table.late),
                    after=Judgement("after", margins, table.late),
                    auc=found["auc"],
                    policy=policy,
                    trade_off=offered,
                    doubts=tuple(table.doubts.texts),
                )
            ),
            "card.md": model_card(
                before.candidate,
                bundle.definition,
                before.trained_on,
                found,
                intervals,
                policy,
                table.trained_on,
            ),
        },
    )
    manifest = msgspec.structs.replace(made.manifest, recalibrated_on=table.trained_on)
    published = store.publish(Draft(manifest, made.files))
    return PublishedCandidate(before.candidate, published, found, chosen=True)


def _rescaled(bundle: Bundle, store: Store, scale: Calibration) -> Scorecard | OnnxParts:
    if isinstance(bundle.model, Scorecard):
        return rescaled(bundle.model, scale.slope, scale.intercept)
    parts = store.onnx_parts(bundle.version)
    old = parts.calibration
    both = Calibration(scale.slope * old.slope, scale.slope * old.intercept + scale.intercept)
    return OnnxParts(parts.graph, parts.encoding, both)
