"""The challenger in shadow: it scores what the champion decided, beside the answers.

A thread of its own does it, from a queue that may overflow: nothing here can hold an answer up,
change it, or make it fail.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any

from peerloan.loan import Loans
from peerloan.model import probabilities
from peerloan.service import metrics
from peerloan.service.champion import Champion, Serving
from peerloan.service.reading import read_loans

log = logging.getLogger(__name__)
# Requests that wait at most; beyond them one is counted as skipped.
_WAITING = 1000


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request's body, and what the champion made of its loans."""

    content: bytes
    probabilities: Sequence[float]
    late: Sequence[bool]


class Shadow:
    """Scores requests by the challenger that the store names, if it names one."""

    def __init__(self, champion: Champion) -> None:
        self._champion = champion
        self._queue: Queue[_Answered] = Queue(_WAITING)
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, content: bytes, answer: Mapping[str, Any]) -> None:
        """Hand over a body with loans, and what the champion answered."""
        predictions = answer.get("predictions", [answer])
        probabilities = [each["probability"] for each in predictions]
        late = [each["late"] for each in predictions]
        try:
            self._queue.put_nowait(_Answered(content, probabilities, late))
        except Full:
            metrics.CHALLENGED.labels("skipped").inc(len(late))
            return
        if self._thread is None:
            with self._begin:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            answered = self._queue.get()
            challenger = self._champion.challenger
            if challenger is not None:
                try:
                    _compare(challenger, answered)
                except Exception:  # whatever a version can raise is not the service's fault
                    metrics.CHALLENGED.labels("failed").inc(len(answered.late))
                    log.exception("the challenger %s failed", challenger.bundle.version)


def _compare(challenger: Serving, answered: _Answered) -> None:
    loans = read_loans(challenger, answered.content)
    scored = [i for i, each in enumerate(loans) if not each.problems]
    metrics.CHALLENGED.labels("failed").inc(len(loans) - len(scored))
    if not scored:
        return
    bundle = challenger.bundle
    columns = Loans.of(bundle.definition, [loans[i].values for i in scored])
    margins = bundle.score_many(columns)[0]
    late = bundle.policy.late_many(margins).tolist()
    changed = sum(own != answered.late[i] for i, own in zip(scored, late, strict=True))
    metrics.CHALLENGED.labels("changed").inc(changed)
    metrics.CHALLENGED.labels("same").inc(len(scored) - changed)
    own = probabilities(margins).tolist()
    metrics.DIFFERENCES.observe_all(
        [each - answered.probabilities[i] for i, each in zip(scored, own, strict=True)]
    )
