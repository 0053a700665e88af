"""The response to drift: make a challenger from matured outcomes and evaluate it."""

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
from peerloan.formatting import join_words, percent, show_loans
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
    StoreFault,
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
    LEAST_LATE,
    Callers,
    Count,
    Outcomes,
    collect,
)

WHO = "monitor"
# With fewer late loans, an interval can't tell two similar versions apart.
LEAST_HELD = 30
# The largest share of outcomes from a caller that no operator has named.
MOST_OF_ONE = 0.5
# Most rules in one sentence.
_NAMED = 3


@dataclass(frozen=True)
class DriftResponse:
    """The result of a response.

    `reason` says why, in a sentence. A challenger that was made has a version and a judgement, and
    was promoted or waits for a person.
    """

    kind: Literal["made", "refused"]
    reason: str
    version: str | None = None
    judgement: ChallengerVerdict | None = None
    leap: ScoreShift | None = None
    callers: Callers | None = None
    deciders: Callers | None = None
    promoted: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the fields of an event about it."""
        judgement, leap = self.judgement, self.leap
        callers, deciders = self.callers, self.deciders
        return {
            "reason": self.reason,
            "challenger": self.version,
            "judgement": None if judgement is None else verdict_json(judgement),
            "leap": None if leap is None else leap.as_json(),
            "outcomes_by": None if callers is None else callers.as_json(),
            "decisions_by": None if deciders is None else deciders.as_json(),
        }


class _Refused(PeerLoanError):
    """No challenger is made, with the reason."""


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

    It may run for minutes: retraining searches all settings of the candidate, since the old ones
    need not suit the new loans (`fast` tries one setting, as `peerloan train --quick`). It uses
    outcomes known at `now_ms` (milliseconds since 1970). The champion changes only if the config
    says `promote`, the challenger is better, its scores have not shifted too far, and no valid
    request would fail. Raises LedgerError or StoreFault.
    """
    acts = [alert for alert in firing if alert.level == "act"]
    if config.on_drift == "notify" or not acts:
        return None
    try:
        state = store.state()
        champion = _champion(config, store, state, acts)
        with tempfile.TemporaryDirectory(prefix="peerloan-") as folder:
            definition = store.definition(champion.version)
            outcomes = collect(database, definition, config, Path(folder), now_ms, progress)
            older, newest = _split_if_enough(outcomes, config)
            version = _publish(config, store, champion, older, fast, progress)
            progress("judging the challenger", 0.0)
            new = store.load(version)
            judgement = evaluate_challenger(store.load(champion.version), new, newest)
            leaped = measure_score_shift(
                _last_chosen_by_person(store, champion.version), new, newest
            )
            progress("judging the challenger", 1.0)
        done = "recalibrated" if config.on_drift == "recalibrate" else "trained"
        why = (
            f"{_describe(acts)}; {done} on {older.name} ({show_loans(outcomes.learnt.loans)}, "
            f"{outcomes.learnt.late:,} late), "
            f"{_reported_by(outcomes.callers.learnt)}; {verdict_sentence(judgement)}: "
            f"{judgement.verdict}; {leaped.sentence()}{_left_out(outcomes, config)}"
        )
        whose = outcomes.callers, outcomes.deciders
        made = DriftResponse("made", why, version, judgement, leaped, *whose)
        return _make_challenger(config, store, state, made)
    except (_Refused, TrainingError, BookError, BundleError, StoreError) as error:
        return DriftResponse("refused", f"{_describe(acts)}; {config.on_drift} is refused: {error}")


def _champion(
    config: MonitoringConfig, store: Store, state: AliasState, acts: Sequence[Alert]
) -> Manifest:
    """Return the champion to respond for. Raises _Refused before anything is read."""
    if state.champion is None:
        raise _Refused("there is no champion")
    if state.challenger is not None:
        raise _Refused(
            f"the challenger {state.challenger} still waits for a person: "
            f"`peerloan models promote {state.challenger}` makes it the champion, "
            "`peerloan models dismiss` drops it"
        )
    champion = store.manifest(state.champion)
    if config.on_drift == "recalibrate":
        others = list(dict.fromkeys(each.rule for each in acts if each.rule != "calibration"))
        if others:
            raise _Refused(
                f"it helps only if calibration alone is off, but {join_words(others)} "
                f"{'fires' if len(others) == 1 else 'fire'} too"
            )
    elif champion.candidate not in CANDIDATES:
        raise _Refused(
            f"{state.champion} is a version of {champion.candidate}, which can't be trained here "
            f"({join_words(list(CANDIDATES))} can)"
        )
    return champion


def _split_if_enough(outcomes: Outcomes, config: MonitoringConfig) -> tuple[Book, Book]:
    """Return the books to train on and to evaluate on. Raises _Refused if one is too small."""
    learnt, held, left_out = outcomes.learnt, outcomes.held, _left_out(outcomes, config)
    if outcomes.older is None or outcomes.newest is None or learnt.late < LEAST_LATE:
        raise _Refused(
            f"expected at least {LEAST_LATE} late loans to learn from, given {learnt.late:,} of "
            f"{learnt.loans:,}, beside {held.late:,} of the {held.loans:,} newest, which judge"
            f"{left_out}"
        )
    for kind, count in (("late", held.late), ("on time", held.loans - held.late)):
        if count < LEAST_HELD:
            raise _Refused(
                f"expected at least {LEAST_HELD} loans to judge by that are {kind}, given "
                f"{count:,} of the {held.loans:,} newest{left_out}"
            )
    if config.outcomes_from is None:
        _refuse_one_caller(outcomes)
    return outcomes.older, outcomes.newest


def _refuse_one_caller(outcomes: Outcomes) -> None:
    """Raise _Refused if a caller that no operator has named reported too large a share."""
    for of_part, what in (
        (outcomes.callers.learnt, "learn from"),
        (outcomes.callers.held, "judge by"),
    ):
        loans_of_all = sum(each.loans for each in of_part.values())
        late_of_all = sum(each.late for each in of_part.values())
        for name, own in of_part.items():
            parts = ((own.loans, loans_of_all, "loans"), (own.late, late_of_all, "late loans"))
            for count, whole, kind in parts:
                if count > MOST_OF_ONE * whole and not name.endswith(COMMAND_LINE):
                    raise _Refused(
                        f"{_caller_name(name)} reported the outcomes of {count:,} of the {whole:,} "
                        f"{kind} to "
                        f"{what}, and nobody has named it as a caller whose outcomes are learnt "
                        f"from; if it is one, add outcomes_from = {json.dumps([name])} to the "
                        "rules' file"
                    )


def _reported_by(callers: Mapping[str, Count]) -> str:
    """Describe who reported the outcomes."""
    shares = [
        f"{_caller_name(name)} ({own.loans:,}, {own.late:,} late)" for name, own in callers.items()
    ]
    return f"their outcomes reported by {join_words(shares)}"


def _left_out(outcomes: Outcomes, config: MonitoringConfig) -> str:
    """Describe the loans that were left out for a reason that an operator can change."""
    sentence = ""
    if outcomes.young:
        sentence += (
            f"; {show_loans(outcomes.young)} with an outcome "
            f"{'was' if outcomes.young == 1 else 'were'} decided on a day of which less than "
            f"{percent(config.mature)} is known"
        )
    early, others, decided = outcomes.passed_over
    if early:
        sentence += (
            f"; {show_loans(early)} {'has' if early == 1 else 'have'} an outcome that was reported "
            "before the first day on which one counts"
        )
    if others:
        sentence += (
            f"; {show_loans(others)} {'has' if others == 1 else 'have'} one of callers not named"
        )
    if decided:
        sentence += (
            f"; {show_loans(decided)} {'was' if decided == 1 else 'were'} decided on for callers "
            "not named"
        )
    if outcomes.unreadable:
        sentence += (
            f"; {show_loans(outcomes.unreadable)} can't be read by the champion's definition"
        )
    return sentence


def _publish(
    config: MonitoringConfig,
    store: Store,
    champion: Manifest,
    older: Book,
    fast: bool,
    progress: Progress,
) -> str:
    """Train or recalibrate on the older loans. Returns the published version."""
    if config.on_drift == "recalibrate":
        return recalibrate(champion.version, older, store, progress).version
    outcomes = train(
        older,
        store.definition(champion.version),
        store,
        (champion.candidate,),
        aim=Aim(champion.policy.aim, champion.policy.aim_value),
        fast=fast,
        progress=progress,
    )
    return outcomes[0].version


def _last_chosen_by_person(store: Store, champion: str) -> Bundle:
    """Return the version that a person last made the champion.

    Shifts are measured against it, so that several responses in a row shift no further than one
    may. Returns the champion if that version has another definition.
    """
    own = store.load(champion)
    for state in reversed(store.history()):
        if state.action in ("promote", "rollback") and state.who != WHO:
            with contextlib.suppress(RegistryError):
                chosen = store.load(str(state.champion))
                return chosen if chosen.definition == own.definition else own
            break
    return own


def _make_challenger(
    config: MonitoringConfig, store: Store, before: AliasState, made: DriftResponse
) -> DriftResponse:
    """Make a version the challenger; promote it if the config and the figures allow."""
    version, why, judgement = str(made.version), made.reason, made.judgement
    state = store.state()
    if (state.champion, state.challenger) != (before.champion, before.challenger):
        raise _Refused(
            f"the champion or challenger changed meanwhile; {version} was made, but is not the "
            "challenger"
        )
    store.challenge(version, why, who=WHO)
    waits = f"it waits for a person: `peerloan models promote {version}`"
    if config.promote and judgement is not None and judgement.verdict == "better":
        try:
            _refuse_score_shift(made.leap)
            confirmed = f"{why}; promoted as confirmed by {config.promote_confirmed}"
            store.promote(version, confirmed, who=WHO)
            return replace(made, reason=confirmed, promoted=True)
        except (BreakingChange, _Refused) as error:
            waits = f"it waits for a person: {error}"
        except StoreFault:
            raise
        except (BundleError, StoreError) as error:
            waits = f"it could not be promoted, and waits for a person: {error}"
    return replace(made, reason=f"{why}; {waits}")


def _refuse_score_shift(leaped: ScoreShift | None) -> None:
    if leaped is None or leaped.is_too_far:
        raise _Refused(
            "it leaps farther than scores explain, and may have learnt from outcomes that are "
            f"wrong (at most {MAX_FACTOR:g} times as high or low a mean probability, or "
            f"{MAX_GROUP_FACTOR:g} times of a group, and a rank correlation of at least "
            f"{MIN_RANK_CORRELATION:g}, are promoted)"
        )


def _caller_name(name: str) -> str:
    """Return a caller's name for people; without tokens, callers have none."""
    return name or "a caller without a token"


def _describe(acts: Sequence[Alert]) -> str:
    """Describe the alerts of level "act", with their figures."""
    figures = [
        f"{alert.rule} of {alert.about} is {alert.value:.3g}, beyond {alert.limit:.3g}"
        for alert in acts
    ]
    return join_words(figures, most=_NAMED)
