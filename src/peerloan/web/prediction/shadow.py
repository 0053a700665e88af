"""Shadow scoring: the challenger scores the loans that the champion has decided on.

The challenger's scores go to the metrics and to the ledger, never to a response. A separate thread
takes decided requests from a bounded queue, so shadow scoring can't delay a response, change it or
make it fail.
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
from peerloan.web.prediction.loan_parsing import parse_stored_loan
from peerloan.web.prediction.predict import Answer
from peerloan.web.prediction.serving_models import LoadedModel, ServingModels
from peerloan.web.telemetry import metrics

log = logging.getLogger(__name__)
# Shortest time between two writes to the ledger.
_WRITE_SECONDS = 1.0
# Interval at which the thread checks whether the ledger's writer still runs.
_CHECK_SECONDS = 0.5


class _ChampionDecision(NamedTuple):
    """The part of a champion's decision that is compared with the challenger's."""

    probability: float
    late: bool


@dataclass(frozen=True, slots=True)
class _DecidedRequest:
    """A request that the champion has decided on, with only what the comparison needs.

    `loans` are the parsed loans, `inputs` the same loans as stored JSON.
    """

    loans: Checked | Loans
    inputs: Sequence[str]
    champion: Bundle
    decisions: Sequence[_ChampionDecision]
    ids: Sequence[bytes]

    @property
    def size(self) -> int:
        """The approximate size of the loans in bytes."""
        return sum(map(len, self.inputs))


class Shadow:
    """Scores decided requests with the store's challenger, if there is one. Thread-safe.

    At most `max_requests` requests wait in the queue, and none is added while their loans have
    `max_bytes` or more. At the end of the process, the waiting requests are scored for at most
    `end_seconds`. All other requests are skipped and counted as such.
    """

    def __init__(
        self,
        serving_models: ServingModels,
        database: Database,
        writer: LedgerWriter,
        *,
        max_requests: int = 1000,
        max_bytes: int = 50_000_000,
        end_seconds: float = 5.0,
    ) -> None:
        self._serving_models = serving_models
        self._database, self._writer = database, writer
        self._queue: Queue[_DecidedRequest] = Queue(max_requests)
        self._max_bytes, self._end_seconds = max_bytes, end_seconds
        # Bytes added to the queue and taken from it so far. Each is changed by one thread only.
        self._added_bytes = self._taken_bytes = 0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """The approximate size in bytes of the loans in the queue."""
        return self._added_bytes - self._taken_bytes

    def commit_callback(
        self, answer: Answer, inputs: Sequence[str]
    ) -> Callable[[Sequence[bytes]], None] | None:
        """Return a function that queues an answer for the challenger; None without a challenger.

        Call the function with the ids of the decisions once they are committed. `inputs` are the
        answer's loans as stored JSON.
        """
        challenger = self._serving_models.challenger
        if challenger is None or challenger.bundle is answer.serving.bundle:
            return None
        return lambda ids: self._add(answer, inputs, ids)

    def _add(self, answer: Answer, inputs: Sequence[str], ids: Sequence[bytes]) -> None:
        """Add an answer to the queue. Only the ledger writer's thread calls this."""
        if self._added_bytes - self._taken_bytes >= self._max_bytes:
            _count_skipped(ids)
            return
        decisions = [_ChampionDecision(each.probability, each.late) for each in answer.decisions]
        loans = answer.checked.loans if isinstance(answer.checked, CheckedLoans) else answer.checked
        request = _DecidedRequest(loans, inputs, answer.serving.bundle, decisions, ids)
        try:
            self._queue.put_nowait(request)
        except Full:
            _count_skipped(ids)
            return
        self._added_bytes += request.size
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="shadow", daemon=False)
                    thread.start()  # if this fails, the next call tries again
                    self._thread = thread

    def _run(self) -> None:
        scores: list[ScoredByChallenger] = []
        write_at = 0.0
        # Like the writer's thread, this is no daemon thread: the process waits for it. It ends
        # after the writer's thread, because only that one adds requests.
        while self._writer.is_running:
            with contextlib.suppress(Empty):
                scores += self._score(self._taken(self._queue.get(timeout=_CHECK_SECONDS)))
            # Each write is a commit, which delays the commits of decisions, so writes are rare.
            if scores and time.monotonic() >= write_at:
                write_at = time.monotonic() + _WRITE_SECONDS
                self._store(scores)
                scores = []
        scores += self._score_rest()
        if scores:
            self._store(scores)

    def _score_rest(self) -> list[ScoredByChallenger]:
        """Score the waiting requests at the end of the process, within the time limit."""
        deadline = time.monotonic() + self._end_seconds
        scores: list[ScoredByChallenger] = []
        with contextlib.suppress(Empty):
            while True:
                request = self._taken(self._queue.get_nowait())
                if time.monotonic() < deadline:
                    scores += self._score(request)
                else:
                    _count_skipped(request.ids)
        return scores

    def _taken(self, request: _DecidedRequest) -> _DecidedRequest:
        """Record that a request was taken from the queue, and return it."""
        self._taken_bytes += request.size
        return request

    def _score(self, request: _DecidedRequest) -> list[ScoredByChallenger]:
        """Score a request with the current challenger; an error is counted and logged."""
        challenger = self._serving_models.challenger
        # The challenger may have become the champion since, or the champion the challenger.
        if challenger is None or challenger.bundle.digest == request.champion.digest:
            return []
        try:
            return _score_and_compare(challenger, request)
        except RequestError:  # the challenger can't parse the loans
            metrics.CHALLENGED.labels("failed").inc(len(request.ids))
            return []
        except OnnxTimeLimit as error:
            metrics.CHALLENGED.labels("failed").inc(len(request.ids))
            metrics.RUNS_GIVEN_UP.labels("shadow").inc()
            log.error("the challenger %s failed: %s", challenger.bundle.version, error)
            return []
        except Exception:  # a version's error must not affect the service
            metrics.CHALLENGED.labels("failed").inc(len(request.ids))
            log.exception("the challenger %s failed", challenger.bundle.version)
            return []

    def _store(self, scores: Sequence[ScoredByChallenger]) -> None:
        try:
            store_challenger_scores(self._database, scores)
        except Exception as error:  # the decisions themselves are stored
            metrics.CHALLENGES_LOST.inc(len(scores))
            log.error(
                "the challenger's scores of %s could not be stored and are lost: %s",
                plural(len(scores), "decision"),
                error,
            )


def _count_skipped(ids: Sequence[bytes]) -> None:
    metrics.CHALLENGED.labels("skipped").inc(len(ids))


def _score_and_compare(
    challenger: LoadedModel, request: _DecidedRequest
) -> list[ScoredByChallenger]:
    """Score a request with the challenger, and count its differences from the champion."""
    loans, indices = _loans_for(challenger, request)
    metrics.CHALLENGED.labels("failed").inc(len(request.ids) - len(indices))
    if not indices:
        return []
    decided = challenger.bundle.decide_many(loans, explain=False)
    champion = [request.decisions[i] for i in indices]
    late, probabilities = decided.late.tolist(), decided.probabilities.tolist()
    changed = sum(new != before.late for new, before in zip(late, champion, strict=True))
    metrics.CHALLENGED.labels("changed").inc(changed)
    metrics.CHALLENGED.labels("same").inc(len(indices) - changed)
    metrics.DIFFERENCES.observe_all(
        [
            probability - before.probability
            for probability, before in zip(probabilities, champion, strict=True)
        ]
    )
    margins = decided.margins.tolist()
    return [
        ScoredByChallenger(request.ids[i], challenger.version, probability, margin)
        for i, probability, margin in zip(indices, probabilities, margins, strict=True)
    ]


def _loans_for(challenger: LoadedModel, request: _DecidedRequest) -> tuple[Loans, Sequence[int]]:
    """Return the loans that the challenger can score, and their indices in the request.

    If the challenger parses loans as the champion does, these are the parsed loans of the request.
    A challenger with other fields parses the stored JSON.
    """
    definition = challenger.bundle.definition
    if _parse_alike(request.champion, challenger.bundle):
        if isinstance(request.loans, Checked):
            return Loans.of(definition, [request.loans.values]), (0,)
        loans = replace(request.loans, definition=definition)
        return loans, range(loans.size)
    checked = [parse_stored_loan(challenger, loan) for loan in request.inputs]
    indices = [i for i, loan in enumerate(checked) if not loan.problems]
    return Loans.of(definition, [checked[i].values for i in indices]), indices


@lru_cache(maxsize=1)  # champion and challenger rarely change
def _parse_alike(champion: Bundle, challenger: Bundle) -> bool:
    return read_alike(champion.definition, challenger.definition)
