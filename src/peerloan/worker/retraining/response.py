"""The answers to drift: a challenger from matured outcomes, judged, and left to a person."""

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
from peerloan.ledger.outcomes import COMMAND_LINE
from peerloan.monitoring.alerts.rules import Spoken
from peerloan.monitoring.config import Plan
from peerloan.registry import (
    BreakingChange,
    Bundle,
    BundleError,
    Manifest,
    RegistryError,
    State,
    Store,
    StoreError,
    StoreFault,
)
from peerloan.reports.wording import loans, percent, several
from peerloan.stats.bootstrap import ChallengerVerdict
from peerloan.training import CANDIDATES, Aim, TrainingError, recalibrate, train
from peerloan.training.search import Progress
from peerloan.worker.retraining.challenger_evaluation import (
    evaluate_challenger,
    verdict_json,
    verdict_sentence,
)
from peerloan.worker.retraining.score_shift import (
    FARTHEST,
    FARTHEST_GROUP,
    LEAST_ALIKE,
    Leap,
    leap,
)
from peerloan.worker.retraining.training_set import (
    LEAST_LATE,
    Callers,
    Count,
    Outcomes,
    collect,
)

WHO = "monitor"
# Of fewer late loans an interval says nothing about two versions that are alike.
LEAST_HELD = 30
# A caller whom no operator has named may have told at most this share of what is learnt from.
MOST_OF_ONE = 0.5
# Rules that one sentence names.
_NAMED = 3


@dataclass(frozen=True)
class Answered:
    """What came of an answer. `reason` says why, in a sentence; a challenger that was made has a
    version and a judgement, and was promoted or waits for a person.
    """

    kind: Literal["made", "refused"]
    reason: str
    version: str | None = None
    judgement: ChallengerVerdict | None = None
    leap: Leap | None = None
    callers: Callers | None = None
    deciders: Callers | None = None
    promoted: bool = False

    def as_json(self) -> dict[str, Any]:
        """What an event tells of it."""
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
    """Why there is no challenger."""


def answer(
    plan: Plan,
    store: Store,
    database: Database,
    spoken: Sequence[Spoken],
    now_ms: int,
    progress: Progress = lambda _what, _done: None,
    *,
    fast: bool = False,
) -> Answered | None:
    """Do what the plan says where rules say "act" of the champion; None if that is nothing.

    Take it from a job that may run for minutes: a version is retrained by the whole search of its
    candidate, since the settings that suited the loans before need not suit those of now (`fast`
    tries one setting, as `peerloan train --quick`). What is known `now_ms` (milliseconds since
    1970) counts. The champion changes only if the plan says `promote`, the challenger is better and
    does not leap, and never if callers would notice. Raises LedgerError or StoreFault.
    """
    acts = [each for each in spoken if each.level == "act"]
    if plan.answer == "notify" or not acts:
        return None
    try:
        state = store.state()
        champion = _champion(plan, store, state, acts)
        with tempfile.TemporaryDirectory(prefix="peerloan-") as folder:
            definition = store.definition(champion.version)
            found = collect(database, definition, plan, Path(folder), now_ms, progress)
            older, newest = _enough(found, plan)
            version = _made(plan, store, champion, older, fast, progress)
            progress("judging the challenger", 0.0)
            new = store.load(version)
            judgement = evaluate_challenger(store.load(champion.version), new, newest)
            leaped = leap(_chosen(store, champion.version), new, newest)
            progress("judging the challenger", 1.0)
        done = "recalibrated" if plan.answer == "recalibrate" else "trained"
        why = (
            f"{_said(acts)}; {done} on {older.name} ({loans(found.learnt.loans)}, "
            f"{found.learnt.late:,} late), "
            f"{_told_by(found.callers.learnt)}; {verdict_sentence(judgement)}: "
            f"{judgement.verdict}; {leaped.sentence()}{_left_out(found, plan)}"
        )
        whose = found.callers, found.deciders
        made = Answered("made", why, version, judgement, leaped, *whose)
        return _put_forward(plan, store, state, made)
    except (_Refused, TrainingError, BookError, BundleError, StoreError) as error:
        return Answered("refused", f"{_said(acts)}; {plan.answer} is refused: {error}")


def _champion(plan: Plan, store: Store, state: State, acts: Sequence[Spoken]) -> Manifest:
    """The version to answer for; raises _Refused, before anything is read."""
    if state.champion is None:
        raise _Refused("there is no champion")
    if state.challenger is not None:
        raise _Refused(
            f"the challenger {state.challenger} still waits for a person: "
            f"`peerloan models promote {state.challenger}` makes it the champion, "
            "`peerloan models dismiss` drops it"
        )
    champion = store.manifest(state.champion)
    if plan.answer == "recalibrate":
        others = list(dict.fromkeys(each.rule for each in acts if each.rule != "calibration"))
        if others:
            raise _Refused(
                f"it helps where calibration alone is off, and {several(others)} "
                f"{'speaks' if len(others) == 1 else 'speak'} too"
            )
    elif champion.candidate not in CANDIDATES:
        raise _Refused(
            f"{state.champion} is a version of {champion.candidate}, which can't be trained here "
            f"({several(list(CANDIDATES))} can)"
        )
    return champion


def _enough(found: Outcomes, plan: Plan) -> tuple[Book, Book]:
    """What is learnt from, and what judges; raises _Refused if either holds too little."""
    learnt, held, left_out = found.learnt, found.held, _left_out(found, plan)
    if found.older is None or found.newest is None or learnt.late < LEAST_LATE:
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
    if plan.outcomes_from is None:
        _refuse_one_caller(found)
    return found.older, found.newest


def _refuse_one_caller(found: Outcomes) -> None:
    """Raise _Refused if a caller whom no operator has named told more than its share."""
    for of_part, what in ((found.callers.learnt, "learn from"), (found.callers.held, "judge by")):
        loans_of_all = sum(each.loans for each in of_part.values())
        late_of_all = sum(each.late for each in of_part.values())
        for name, own in of_part.items():
            parts = ((own.loans, loans_of_all, "loans"), (own.late, late_of_all, "late loans"))
            for count, whole, kind in parts:
                if count > MOST_OF_ONE * whole and not name.endswith(COMMAND_LINE):
                    raise _Refused(
                        f"{_shown(name)} told the outcomes of {count:,} of the {whole:,} {kind} to "
                        f"{what}, and nobody has named it as a caller whose outcomes are learnt "
                        f"from; if it is one, add outcomes_from = {json.dumps([name])} to the "
                        "rules' file"
                    )


def _told_by(callers: Mapping[str, Count]) -> str:
    """Whose outcomes they are, in words."""
    shares = [f"{_shown(name)} ({own.loans:,}, {own.late:,} late)" for name, own in callers.items()]
    return f"their outcomes told by {several(shares)}"


def _left_out(found: Outcomes, plan: Plan) -> str:
    """Loans that could have been learnt from or judged by, but for something that can be mended."""
    said = ""
    if found.young:
        said += (
            f"; {loans(found.young)} with an outcome {'was' if found.young == 1 else 'were'} "
            f"decided on a day of which less than {percent(plan.mature)} is known"
        )
    early, others, decided = found.passed_over
    if early:
        said += (
            f"; {loans(early)} {'has' if early == 1 else 'have'} an outcome that was told before "
            "the first day on which one counts"
        )
    if others:
        said += f"; {loans(others)} {'has' if others == 1 else 'have'} one of callers not named"
    if decided:
        said += (
            f"; {loans(decided)} {'was' if decided == 1 else 'were'} decided on for callers not "
            "named"
        )
    if found.unreadable:
        said += f"; {loans(found.unreadable)} can't be read by the champion's definition"
    return said


def _made(
    plan: Plan, store: Store, champion: Manifest, older: Book, fast: bool, progress: Progress
) -> str:
    """Publish a version that has learnt from the older loans."""
    if plan.answer == "recalibrate":
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


def _chosen(store: Store, champion: str) -> Bundle:
    """The version that a person made the champion last: so several answers, one after another,
    leap no farther than one may. The champion, if that one read other loans.
    """
    own = store.load(champion)
    for state in reversed(store.history()):
        if state.action in ("promote", "rollback") and state.who != WHO:
            with contextlib.suppress(RegistryError):
                chosen = store.load(str(state.champion))
                return chosen if chosen.definition == own.definition else own
            break
    return own


def _put_forward(plan: Plan, store: Store, before: State, made: Answered) -> Answered:
    """Make a version the challenger, and the champion if the plan says so, it is better and does
    not leap.
    """
    version, why, judgement = str(made.version), made.reason, made.judgement
    now = store.state()
    if (now.champion, now.challenger) != (before.champion, before.challenger):
        raise _Refused(
            f"the aliases were changed meanwhile; {version} was made, and is not the challenger"
        )
    store.challenge(version, why, who=WHO)
    waits = f"it waits for a person: `peerloan models promote {version}`"
    if plan.promote and judgement is not None and judgement.verdict == "better":
        try:
            _refuse_leap(made.leap)
            confirmed = f"{why}; promoted as confirmed by {plan.promote_confirmed}"
            store.promote(version, confirmed, who=WHO)
            return replace(made, reason=confirmed, promoted=True)
        except (BreakingChange, _Refused) as error:
            waits = f"it waits for a person: {error}"
        except StoreFault:
            raise
        except (BundleError, StoreError) as error:
            waits = f"it could not be promoted, and waits for a person: {error}"
    return replace(made, reason=f"{why}; {waits}")


def _refuse_leap(leaped: Leap | None) -> None:
    if leaped is None or leaped.is_too_far:
        raise _Refused(
            "it leaps farther than scores explain, and may have learnt from outcomes that are "
            f"wrong (at most {FARTHEST:g} times as high or low a mean probability, or "
            f"{FARTHEST_GROUP:g} times of a group, and a rank correlation of at least "
            f"{LEAST_ALIKE:g}, are promoted)"
        )


def _shown(name: str) -> str:
    """A caller's name, for people; where nobody needs a token, callers have none."""
    return name or "a caller without a token"


def _said(acts: Sequence[Spoken]) -> str:
    """The rules that say "act", with their figures."""
    said = [
        f"{each.rule} of {each.about} is {each.value:.3g}, beyond {each.limit:.3g}" for each in acts
    ]
    return several(said, most=_NAMED)
