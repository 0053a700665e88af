"""The response to drift: train a challenger from matured outcomes and evaluate it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from peerloan.book import Book, BookError
from peerloan.database import Database
from peerloan.errors import PeerLoanError
from peerloan.formatting import join_words, percent, plural
from peerloan.ledger.outcomes import COMMAND_LINE
from peerloan.monitoring.alerts.rules import Alert
from peerloan.monitoring.config import MonitoringConfig
from peerloan.registry import (
    AliasState,
    BreakingChange,
    Bundle,
    BundleError,
    Manifest,
    RegistryError,
    Store,
    StoreError,
)
from peerloan.stats.bootstrap import ChallengerVerdict
from peerloan.training import CANDIDATES, Aim, TrainingError, recalibrate, train
from peerloan.training.search import Progress
from peerloan.worker.retraining.challenger_evaluation import (
    evaluate_challenger,
    verdict_json,
    verdict_sentence,
)
from peerloan.worker.retraining.score_shift import (
    MAX_FACTOR,
    MAX_GROUP_FACTOR,
    MIN_RANK_CORRELATION,
    ScoreShift,
    measure_score_shift,
)
from peerloan.worker.retraining.training_set import (
    MIN_TRAINING_LATE,
    CallerCounts,
    Count,
    SplitOutcomes,
    split_outcomes,
)

# The author of the alias changes that a response makes.
WHO = "monitor"
# Fewest late loans, and fewest others, in the test book. With fewer, the intervals are too wide to
# distinguish two similar versions.
MIN_TEST_LOANS = 30
# The largest share of outcomes that one caller may report, unless an operator has named the caller.
MAX_CALLER_SHARE = 0.5
# Most alerts in one sentence.
_MAX_ALERTS = 3
_EVALUATING = "evaluating the challenger"


@dataclass(frozen=True)
class DriftResponse:
    """The result of a response: a challenger was made, or that was refused.

    `reason` explains it in a sentence. A challenger has a version, a verdict and a score shift, and
    counts of its training and test loans by caller: `reporters` reported the outcomes, `deciders`
    requested the decisions. It was promoted, or waits for a person.
    """

    kind: Literal["made", "refused"]
    reason: str
    version: str | None = None
    verdict: ChallengerVerdict | None = None
    score_shift: ScoreShift | None = None
    reporters: CallerCounts | None = None
    deciders: CallerCounts | None = None
    promoted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the event about the response."""
        verdict, score_shift = self.verdict, self.score_shift
        reporters, deciders = self.reporters, self.deciders
        return {
            "reason": self.reason,
            "challenger": self.version,
            "judgement": None if verdict is None else verdict_json(verdict),
            "leap": None if score_shift is None else score_shift.as_json(),
            "outcomes_by": None if reporters is None else reporters.as_json(),
            "decisions_by": None if deciders is None else deciders.as_json(),
        }


class _Refused(PeerLoanError):
    """A challenger is not made or not promoted; the message gives the reason."""


def respond_to_drift(
    config: MonitoringConfig,
    store: Store,
    database: Database,
    firing: Sequence[Alert],
    now_ms: int,
    progress: Progress = lambda _what, _done: None,
    *,
    fast: bool = False,
) -> DriftResponse | None:
    """Respond to alerts of level "act" about the champion; None if no response is due.

    It may run for minutes: retraining searches all settings of the candidate, because the old ones
    may not suit the new loans. With `fast` it tries one setting, as `peerloan train --quick` does.
    It uses outcomes known at `now_ms` (milliseconds since 1970). The champion changes only if the
    config has `promote = true`, the challenger is better, its scores have not shifted too far, and
    no valid request would fail. Raises LedgerError or StoreFault.
    """
    acts = [alert for alert in firing if alert.level == "act"]
    if config.on_drift == "notify" or not acts:
        return None
    try:
        state = store.state()
        champion = _champion(config, store, state, acts)
        with tempfile.TemporaryDirectory(prefix="peerloan-") as folder:
            definition = store.definition(champion.version)
            outcomes = split_outcomes(database, definition, config, Path(folder), now_ms, progress)
            training_book, test_book = _books_if_enough(outcomes, config)
            version = _train(config, store, champion, training_book, fast, progress)
            progress(_EVALUATING, 0.0)
            challenger = store.load(version)
            verdict = evaluate_challenger(store.load(champion.version), challenger, test_book)
            score_shift = measure_score_shift(
                _last_chosen_by_person(store, champion.version), challenger, test_book
            )
            progress(_EVALUATING, 1.0)
        done = "recalibrated" if config.on_drift == "recalibrate" else "trained"
        reason = (
            f"{_describe_alerts(acts)}; {done} on {training_book.name} "
            f"({plural(outcomes.training.loans, 'loan')}, {outcomes.training.late:,} late); "
            f"{_describe_reporters(outcomes.reporters.training)}; {verdict_sentence(verdict)}: "
            f"{verdict.verdict}; {score_shift.sentence()}{_describe_left_out(outcomes, config)}"
        )
        callers = outcomes.reporters, outcomes.deciders
        made = DriftResponse("made", reason, version, verdict, score_shift, *callers)
        return _make_challenger(config, store, state, made)
    except (_Refused, TrainingError, BookError, BundleError, StoreError) as error:
        return DriftResponse(
            "refused", f"{_describe_alerts(acts)}; {config.on_drift} is refused: {error}"
        )


def _champion(
    config: MonitoringConfig, store: Store, state: AliasState, acts: Sequence[Alert]
) -> Manifest:
    """Return the champion's manifest. Raises _Refused if no response is possible."""
    if state.champion is None:
        raise _Refused("there is no champion")
    if state.challenger is not None:
        raise _Refused(
            f"the challenger {state.challenger} still waits for a person: promote it by "
            f"`peerloan models promote {state.challenger}`, or remove it by "
            "`peerloan models dismiss`"
        )
    champion = store.manifest(state.champion)
    if config.on_drift == "recalibrate":
        other_rules = list(
            dict.fromkeys(alert.rule for alert in acts if alert.rule != "calibration")
        )
        if other_rules:
            raise _Refused(
                "recalibration helps only if no rule but calibration fires; also firing: "
                f"{join_words(other_rules)}"
            )
    elif champion.candidate not in CANDIDATES:
        raise _Refused(
            f"{state.champion} is a version of {champion.candidate}, which can't be trained here; "
            f"expected {join_words(list(CANDIDATES))}"
        )
    return champion


def _books_if_enough(outcomes: SplitOutcomes, config: MonitoringConfig) -> tuple[Book, Book]:
    """Return the training and the test book. Raises _Refused if one has too few loans."""
    training, test = outcomes.training, outcomes.test
    left_out = _describe_left_out(outcomes, config)
    if (
        outcomes.training_book is None
        or outcomes.test_book is None
        or training.late < MIN_TRAINING_LATE
    ):
        raise _Refused(
            f"training loans: expected at least {MIN_TRAINING_LATE} late ones, given "
            f"{training.late:,} of {training.loans:,}; the test loans have {test.late:,} late ones "
            f"of {test.loans:,}{left_out}"
        )
    for kind, count in (("late", test.late), ("on-time", test.loans - test.late)):
        if count < MIN_TEST_LOANS:
            raise _Refused(
                f"test loans: expected at least {MIN_TEST_LOANS} {kind} ones, given {count:,} of "
                f"the {test.loans:,} newest loans{left_out}"
            )
    if config.outcomes_from is None:
        _refuse_one_caller(outcomes.reporters.training, "training loans")
        _refuse_one_caller(outcomes.reporters.test, "test loans")
    return outcomes.training_book, outcomes.test_book


def _refuse_one_caller(callers: Mapping[str, Count], part: str) -> None:
    """Raise _Refused if one caller reported too many outcomes and no operator has named it."""
    all_loans = sum(count.loans for count in callers.values())
    all_late = sum(count.late for count in callers.values())
    for name, count in callers.items():
        is_too_large = (
            count.loans > MAX_CALLER_SHARE * all_loans or count.late > MAX_CALLER_SHARE * all_late
        )
        if is_too_large and not name.endswith(COMMAND_LINE):
            raise _Refused(
                f"{_caller_name(name)} reported the outcomes of {count.loans:,} of the "
                f"{all_loans:,} {part} and of {count.late:,} of the {all_late:,} late ones, and "
                "the monitoring config names no callers whose outcomes are used for training; if "
                f"this is such a caller, add outcomes_from = {json.dumps([name])} to the config"
            )


def _describe_reporters(callers: Mapping[str, Count]) -> str:
    """Describe who reported the outcomes."""
    shares = [
        f"{_caller_name(name)} ({count.loans:,}, {count.late:,} late)"
        for name, count in callers.items()
    ]
    return f"outcomes reported by {join_words(shares)}"


def _describe_left_out(outcomes: SplitOutcomes, config: MonitoringConfig) -> str:
    """Describe the loans that were left out for a reason that an operator can change."""
    skipped = outcomes.skipped
    reasons = (
        (
            outcomes.young,
            f"of days of which less than {percent(config.mature)} of outcomes is known",
        ),
        (skipped.early, "with an outcome reported before the first day on which one counts"),
        (skipped.others, "with an outcome reported by a caller that outcomes_from does not name"),
        (skipped.decisions, "decided on for a caller that decisions_from does not name"),
        (outcomes.unreadable, "that the champion's definition can't read"),
    )
    left_out = [f"{plural(count, 'loan')} {reason}" for count, reason in reasons if count]
    return f"; left out: {', '.join(left_out)}" if left_out else ""


def _train(
    config: MonitoringConfig,
    store: Store,
    champion: Manifest,
    training_book: Book,
    fast: bool,
    progress: Progress,
) -> str:
    """Train or recalibrate a version and publish it. Returns its name."""
    if config.on_drift == "recalibrate":
        return recalibrate(champion.version, training_book, store, progress).version
    published = train(
        training_book,
        store.definition(champion.version),
        store,
        (champion.candidate,),
        aim=Aim(champion.policy.aim, champion.policy.aim_value),
        fast=fast,
        progress=progress,
    )
    return published[0].version


def _last_chosen_by_person(store: Store, champion: str) -> Bundle:
    """Return the version that a person last made the champion.

    Score shifts are measured against it, so that several responses in a row can't shift farther
    than a single one may. Returns the champion if that version can't be read or has another
    definition.
    """
    bundle = store.load(champion)
    for state in reversed(store.history()):
        if state.action in ("promote", "rollback") and state.who != WHO:
            with contextlib.suppress(RegistryError):
                chosen = store.load(str(state.champion))
                return chosen if chosen.definition == bundle.definition else bundle
            break
    return bundle


def _make_challenger(
    config: MonitoringConfig, store: Store, before: AliasState, made: DriftResponse
) -> DriftResponse:
    """Make a version the challenger; promote it if the config and the figures allow."""
    version, reason, verdict = str(made.version), made.reason, made.verdict
    state = store.state()
    if (state.champion, state.challenger) != (before.champion, before.challenger):
        raise _Refused(
            f"the champion or challenger changed meanwhile; {version} was published, but is not "
            "the challenger"
        )
    store.challenge(version, reason, who=WHO)
    waits = f"it waits for a person: `peerloan models promote {version}`"
    if config.promote and verdict is not None and verdict.verdict == "better":
        try:
            _refuse_score_shift(made.score_shift)
            confirmed = f"{reason}; promoted as confirmed by {config.promote_confirmed}"
            store.promote(version, confirmed, who=WHO)
            return replace(made, reason=confirmed, promoted=True)
        except (BreakingChange, _Refused) as error:
            waits = f"it waits for a person: {error}"
        except (BundleError, StoreError) as error:
            waits = f"it could not be promoted, and waits for a person: {error}"
    return replace(made, reason=f"{reason}; {waits}")


def _refuse_score_shift(score_shift: ScoreShift | None) -> None:
    """Raise _Refused if the scores have shifted so far that a person must review the version."""
    if score_shift is None or score_shift.is_too_far:
        raise _Refused(
            "its scores shifted farther than drift of the loans explains, so its outcomes may be "
            f"wrong; expected a mean probability at most {MAX_FACTOR:g} times as high or low, in "
            f"each group at most {MAX_GROUP_FACTOR:g} times, and a rank correlation of at least "
            f"{MIN_RANK_CORRELATION:g}"
        )


def _caller_name(name: str) -> str:
    """Return the name of a caller for people. Callers have no name if there are no tokens."""
    return name or "a caller without a token"


def _describe_alerts(acts: Sequence[Alert]) -> str:
    """Describe the alerts of level "act", with their figures."""
    figures = [
        f"{alert.rule} of {alert.about} is {alert.value:.3g}, beyond {alert.limit:.3g}"
        for alert in acts
    ]
    return join_words(figures, most=_MAX_ALERTS)
