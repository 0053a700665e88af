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
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import NamedTuple

from peerloan.database import Database
from peerloan.ledger.challenger_scores import Challenge, keep_challenges
from peerloan.ledger.write.group_commit import Writer
from peerloan.loan import Loans
from peerloan.loan.text import counted
from peerloan.model import OnnxTimeLimit, probabilities
from peerloan.registry import Bundle
from peerloan.web.http.problems import RequestError
from peerloan.web.prediction.loan_parsing import read_loans
from peerloan.web.prediction.predict import Answer
from peerloan.web.prediction.serving_models import LoadedModel, ServingModels
from peerloan.web.telemetry import metrics

log = logging.getLogger(__name__)
# Requests that wait at most, and bytes of their bodies; beyond them one is counted as skipped.
_WAITING, _WAITING_BYTES = 1000, 50_000_000
_WRITE_SECONDS = 1.0
_LOOK_SECONDS = 0.5
# How long the process waits at its end for what is not scored yet; the rest is skipped.
_END_SECONDS = 5.0


class _Own(NamedTuple):
    """What of a champion's decision is compared."""

    probability: float
    late: bool


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request's loans, as a body, and what was made of them: no more than is compared, for many
    may wait.
    """

    content: bytes
    bundle: Bundle
    decisions: Sequence[_Own]
    ids: Sequence[bytes]


class Shadow:
    """Scores requests by the challenger that the store names, if it names one."""

    def __init__(self, champion: ServingModels, database: Database, writer: Writer) -> None:
        self._champion = champion
        self._database, self._writer = database, writer
        self._queue: Queue[_Answered] = Queue(_WAITING)
        # Bytes that were handed over, and that were taken: each is changed by one thread alone.
        self._put_bytes = self._taken_bytes = 0
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def following(self, content: bytes, answer: Answer) -> Callable[[Sequence[bytes]], None] | None:
        """What hands over loans and their answer, once its decisions have ids and last; None while
        nothing runs in shadow.
        """
        if self._champion.challenger is None:
            return None
        return lambda ids: self._follow(content, answer, ids)

    def _follow(self, content: bytes, answer: Answer, ids: Sequence[bytes]) -> None:
        """Called by the thread that keeps decisions, and by no other."""
        if self._put_bytes - self._taken_bytes >= _WAITING_BYTES:
            _skip(ids)
            return
        own = [_Own(each.probability, each.late) for each in answer.decisions]
        try:
            self._queue.put_nowait(_Answered(content, answer.serving.bundle, own, ids))
        except Full:
            _skip(ids)
            return
        self._put_bytes += len(content)
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
        self._taken_bytes += len(answered.content)
        return answered

    def _scored(self, answered: _Answered) -> list[Challenge]:
        challenger = self._champion.challenger
        # It may have been the champion when it answered, or be the champion by now.
        if challenger is None or challenger.bundle.digest == answered.bundle.digest:
            return []
        try:
            return _compare(challenger, answered)
        except RequestError:  # it can't score them: of columns, it may need one that is not there
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
                counted(len(challenges), "decision"),
                error,
            )


def _skip(ids: Sequence[bytes]) -> None:
    metrics.CHALLENGED.labels("skipped").inc(len(ids))


def _compare(challenger: LoadedModel, answered: _Answered) -> list[Challenge]:
    loans = read_loans(challenger, answered.content)
    scored = [i for i, each in enumerate(loans) if not each.problems]
    if not scored:
        metrics.CHALLENGED.labels("failed").inc(len(loans))
        return []
    bundle = challenger.bundle
    columns = Loans.of(bundle.definition, [loans[i].values for i in scored])
    margins = bundle.score_many(columns)[0]
    late = bundle.policy.late_many(margins).tolist()
    decisions = answered.decisions
    changed = sum(own != decisions[i].late for i, own in zip(scored, late, strict=True))
    metrics.CHALLENGED.labels("failed").inc(len(loans) - len(scored))
    metrics.CHALLENGED.labels("changed").inc(changed)
    metrics.CHALLENGED.labels("same").inc(len(scored) - changed)
    own = probabilities(margins).tolist()
    metrics.DIFFERENCES.observe_all(
        [each - decisions[i].probability for i, each in zip(scored, own, strict=True)]
    )
    return [
        Challenge(answered.ids[i], challenger.version, probability, margin)
        for i, probability, margin in zip(scored, own, margins.tolist(), strict=True)
    ]
