"""The challenger in shadow: it scores the same loans as the champion, apart from responses.

Its own thread takes requests from a bounded queue. Nothing here can delay, change or fail a
response.
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
from peerloan.ledger.challenger_scores import ScoredByChallenger, store_challenger_scores
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
# Most queued requests, and most bytes of their loans; beyond that, requests are skipped.
_WAITING, _WAITING_BYTES = 1000, 50_000_000
_WRITE_SECONDS = 1.0
_LOOK_SECONDS = 0.5
# Time limit at the end of the process for scoring the rest; what remains is skipped.
_END_SECONDS = 5.0


class _Own(NamedTuple):
    """The part of a champion's decision that is compared with the challenger's."""

    probability: float
    late: bool


@dataclass(frozen=True, slots=True)
class _Answered:
    """A decided request: its loans, parsed and as stored JSON, and its decisions.

    It has only the compared parts, because many may be queued.
    """

    loans: Checked | Loans
    inputs: Sequence[str]
    bundle: Bundle
    decisions: Sequence[_Own]
    ids: Sequence[bytes]

    @property
    def size(self) -> int:
        """The approximate size of the loans in bytes."""
        return sum(map(len, self.inputs))


class Shadow:
    """Scores requests with the store's challenger, if there is one. Thread-safe."""

    def __init__(self, champion: ServingModels, database: Database, writer: LedgerWriter) -> None:
        self._champion = champion
        self._database, self._writer = database, writer
        self._queue: Queue[_Answered] = Queue(_WAITING)
        # Bytes queued and bytes taken so far. Each is changed by one thread only.
        self._put_bytes = self._taken_bytes = 0
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def from_environment(
        self, answer: Answer, inputs: Sequence[str]
    ) -> Callable[[Sequence[bytes]], None] | None:
        """Return a function that queues an answer, given the ids of its committed decisions.

        None if no other version runs in shadow. `inputs` are the loans as stored JSON.
        """
        challenger = self._champion.challenger
        if challenger is None or challenger.bundle is answer.serving.bundle:
            return None
        return lambda ids: self._follow(answer, inputs, ids)

    def _follow(self, answer: Answer, inputs: Sequence[str], ids: Sequence[bytes]) -> None:
        """Queue an answer. Only the ledger writer's thread calls this."""
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
                    thread.start()  # if it can't, the next call tries again
                    self._thread = thread

    def _run(self) -> None:
        challenges: list[ScoredByChallenger] = []
        write_at = 0.0
        # Not a daemon thread, like the writer's, after whose end nothing more is queued.
        while self._writer.runs:
            with contextlib.suppress(Empty):
                challenges += self._scored(self._taken(self._queue.get(timeout=_LOOK_SECONDS)))
            # Each write is a commit, which delays the commits of decisions, so they are rare.
            if challenges and time.monotonic() >= write_at:
                write_at = time.monotonic() + _WRITE_SECONDS
                self._keep(challenges)
                challenges = []
        challenges += self._rest()
        if challenges:
            self._keep(challenges)

    def _rest(self) -> list[ScoredByChallenger]:
        """Score what is left at the end of the process, within a time limit."""
        until = time.monotonic() + _END_SECONDS
        challenges: list[ScoredByChallenger] = []
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

    def _scored(self, answered: _Answered) -> list[ScoredByChallenger]:
        challenger = self._champion.challenger
        # The challenger may be, or have been, the champion.
        if challenger is None or challenger.bundle.digest == answered.bundle.digest:
            return []
        try:
            return _compare(challenger, answered)
        except RequestError:  # the challenger can't read them
            metrics.CHALLENGED.labels("failed").inc(len(answered.ids))
            return []
        except OnnxTimeLimit as error:
            metrics.CHALLENGED.labels("failed").inc(len(answered.ids))
            metrics.RUNS_GIVEN_UP.labels("shadow").inc()
            log.error("the challenger %s failed: %s", challenger.bundle.version, error)
            return []
        except Exception:  # a version's error must not affect the service
            metrics.CHALLENGED.labels("failed").inc(len(answered.ids))
            log.exception("the challenger %s failed", challenger.bundle.version)
            return []

    def _keep(self, challenges: Sequence[ScoredByChallenger]) -> None:
        try:
            store_challenger_scores(self._database, challenges)
        except Exception as error:  # the decisions themselves are stored
            metrics.CHALLENGES_LOST.inc(len(challenges))
            log.error(
                "what the challenger made of %s is lost: %s",
                plural(len(challenges), "decision"),
                error,
            )


def _skip(ids: Sequence[bytes]) -> None:
    metrics.CHALLENGED.labels("skipped").inc(len(ids))


def _compare(challenger: LoadedModel, answered: _Answered) -> list[ScoredByChallenger]:
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
        ScoredByChallenger(answered.ids[i], challenger.version, probability, margin)
        for i, probability, margin in zip(scored, own, decided.margins.tolist(), strict=True)
    ]


def _loans(challenger: LoadedModel, answered: _Answered) -> tuple[Loans, Sequence[int]]:
    """Return the loans that the challenger can score, and their positions in the request.

    If it reads loans as the champion does, these are the champion's parsed loans. A version with
    other fields parses the stored JSON.
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


@lru_cache(maxsize=1)  # champion and challenger rarely change
def _reads_alike(champion: Bundle, challenger: Bundle) -> bool:
    return read_alike(champion.definition, challenger.definition)
