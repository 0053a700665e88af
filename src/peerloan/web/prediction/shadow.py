"""The challenger in shadow: it scores what the champion decided, beside the answers.

A thread of its own does it, from a queue that may overflow: nothing here can hold an answer up,
change it, or make it fail.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from queue import Empty, Full, Queue
from typing import NamedTuple

from peerloan.database import Database
from peerloan.formatting import plural
from peerloan.ledger.challenger_scores import Challenge, keep_challenges
from peerloan.ledger.write.group_commit import LedgerWriter
from peerloan.loan import Checked, CheckedLoans, Loans, read_alike
from peerloan.model import OnnxTimeLimit
from peerloan.registry import Bundle
from peerloan.web.http.problems import RequestError
from peerloan.web.prediction.loan_parsing import read_input
from peerloan.web.prediction.predict import Answer
from peerloan.web.prediction.serving_models import LoadedModel, ServingModels
from peerloan.web.telemetry import metrics

log = logging.getLogger(__name__)
# Requests that wait at most, and bytes of their loans; beyond them one is counted as skipped.
_WAITING, _WAITING_BYTES = 1000, 50_000_000
_WRITE_SECONDS = 1.0
_LOOK_SECONDS = 0.5
# How long the process waits at its end for what is not scored yet; the rest is skipped.
_END_SECONDS = 5.0


class _Own(NamedTuple):
    """The part of a champion's decision that is compared."""

    probability: float
    late: bool


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request's loans, parsed and as the ledger keeps them, and what was decided on them. No more
    than is compared, for many may wait.
    """

    loans: Checked | Loans
    inputs: Sequence[str]
    bundle: Bundle
    decisions: Sequence[_Own]
    ids: Sequence[bytes]

    @property
    def size(self) -> int:
        """About how many bytes the loans take."""
        return sum(map(len, self.inputs))


class Shadow:
    """Scores requests by the challenger that the store names, if it names one."""

    def __init__(self, champion: ServingModels, database: Database, writer: LedgerWriter) -> None:
        self._champion = champion
        self._database, self._writer = database, writer
        self._queue: Queue[_Answered] = Queue(_WAITING)
        # Bytes that were handed over, and that were taken: each is changed by one thread alone.
        self._put_bytes = self._taken_bytes = 0
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def following(
        self, answer: Answer, inputs: Sequence[str]
    ) -> Callable[[Sequence[bytes]], None] | None:
        """The function that hands over an answer once its decisions are kept, given their ids; None
        while no other version runs in shadow. `inputs` are the loans as the ledger keeps them.
        """
        challenger = self._champion.challenger
        if challenger is None or challenger.bundle is answer.serving.bundle:
            return None
        return lambda ids: self._follow(answer, inputs, ids)

    def _follow(self, answer: Answer, inputs: Sequence[str], ids: Sequence[bytes]) -> None:
        """Called by the thread that keeps decisions, and by no other."""
        if self._put_bytes - self._taken_bytes >= _WAITING_BYTES:
            _skip(ids)
            return
        own = [_Own(each.probability, each.late) for each in answer.decisions]
        loans = answer.checked.loans if isinstance(answer.checked, CheckedLoans) else answer.checked
        answered = _Answered(loans, inputs, answer.serving.bundle, own, ids)
        try:
            self._queue.put_nowait(answered)
        except Full:
            _skip(ids)
            return
        self._put_bytes += answered.size
        if self._thread is None:
            with self._begin:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="shadow", daemon=False)
                    thread.start()  # if it can't, the next one tries again
                    self._thread = thread

    def _run(self) -> None:
        challenges: list[Challenge] = []
        write_at = 0.0
        # No daemon, as the writer's thread, after which nothing is handed over any more.
        while self._writer.runs:
            with contextlib.suppress(Empty):
                challenges += self._scored(self._taken(self._queue.get(timeout=_LOOK_SECONDS)))
            # Each write is a commit, which the decisions' own wait for.
            if challenges and time.monotonic() >= write_at:
                write_at = time.monotonic() + _WRITE_SECONDS
                self._keep(challenges)
                challenges = []
        challenges += self._rest()
        if challenges:
            self._keep(challenges)

    def _rest(self) -> list[Challenge]:
        """What is left to score when the process ends, which can't wait for long."""
        until = time.monotonic() + _END_SECONDS
        challenges: list[Challenge] = []
        with contextlib.suppress(Empty):
            while True:
                answered = self._taken(self._queue.get_nowait())
                if time.monotonic() < until:
                    challenges += self._scored(answered)
                else:
                    _skip(answered.ids)
        return challenges

    def _taken(self, answered: _Answered) -> _Answered:
        self._taken_bytes += answered.size
        return answered

    def _scored(self, answered: _Answered) -> list[Challenge]:
        challenger = self._champion.challenger
        # It may have been the champion when it answered, or be the champion by now.
        if challenger is None or challenger.bundle.digest == answered.bundle.digest:
            return []
        try:
            return _compare(challenger, answered)
        except RequestError:  # it can't read them
            metrics.CHALLENGED.labels("failed").inc(len(answered.ids))
            return []
        except OnnxTimeLimit as error:
            metrics.CHALLENGED.labels("failed").inc(len(answered.ids))
            metrics.RUNS_GIVEN_UP.labels("shadow").inc()
            log.error("the challenger %s failed: %s", challenger.bundle.version, error)
            return []
        except Exception:  # whatever a version can raise is not the service's fault
            metrics.CHALLENGED.labels("failed").inc(len(answered.ids))
            log.exception("the challenger %s failed", challenger.bundle.version)
            return []

    def _keep(self, challenges: Sequence[Challenge]) -> None:
        try:
            keep_challenges(self._database, challenges)
        except Exception as error:  # the decisions themselves are kept
            metrics.CHALLENGES_LOST.inc(len(challenges))
            log.error(
                "what the challenger made of %s is lost: %s",
                plural(len(challenges), "decision"),
                error,
            )


def _skip(ids: Sequence[bytes]) -> None:
    metrics.CHALLENGED.labels("skipped").inc(len(ids))


def _compare(challenger: LoadedModel, answered: _Answered) -> list[Challenge]:
    loans, scored = _loans(challenger, answered)
    metrics.CHALLENGED.labels("failed").inc(len(answered.ids) - len(scored))
    if not scored:
        return []
    decided = challenger.bundle.decide_many(loans, explain=False)
    champion = [answered.decisions[i] for i in scored]
    late, own = decided.late.tolist(), decided.probabilities.tolist()
    changed = sum(now != before.late for now, before in zip(late, champion, strict=True))
    metrics.CHALLENGED.labels("changed").inc(changed)
    metrics.CHALLENGED.labels("same").inc(len(scored) - changed)
    metrics.DIFFERENCES.observe_all(
        [now - before.probability for now, before in zip(own, champion, strict=True)]
    )
    return [
        Challenge(answered.ids[i], challenger.version, probability, margin)
        for i, probability, margin in zip(scored, own, decided.margins.tolist(), strict=True)
    ]


def _loans(challenger: LoadedModel, answered: _Answered) -> tuple[Loans, Sequence[int]]:
    """The loans that the challenger can score, and their positions in the request.

    Where it reads loans as the champion does, these are the champion's, parsed already. A version
    of other fields reads what the ledger keeps.
    """
    definition = challenger.bundle.definition
    if _reads_alike(answered.bundle, challenger.bundle):
        if isinstance(answered.loans, Checked):
            return Loans.of(definition, [answered.loans.values]), (0,)
        loans = replace(answered.loans, definition=definition)
        return loans, range(loans.size)
    read = [read_input(challenger, loan) for loan in answered.inputs]
    scored = [i for i, loan in enumerate(read) if not loan.problems]
    return Loans.of(definition, [read[i].values for i in scored]), scored


@lru_cache(maxsize=1)  # the champion and the challenger seldom change
def _reads_alike(champion: Bundle, challenger: Bundle) -> bool:
    return read_alike(champion.definition, challenger.definition)
