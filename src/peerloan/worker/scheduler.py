"""The worker's schedule: run rounds at an interval, in one process at a time."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

from peerloan.clock import DAY_MS, now_ms
from peerloan.database import Database, LedgerError
from peerloan.formatting import plural
from peerloan.monitoring.alerts.delivery import deliver_due
from peerloan.monitoring.alerts.events import (
    BEGAN,
    ENDED,
    MADE,
    PROMOTED,
    REFUSED,
    ROSE,
    store_event,
)
from peerloan.monitoring.config import MonitoringConfig
from peerloan.monitoring.counting.storage import read_judged_ms
from peerloan.registry import Store, StoreFault
from peerloan.worker.lease import RENEW_SECONDS, Lease
from peerloan.worker.monitoring_round import Round, Watcher
from peerloan.worker.prometheus import Metrics
from peerloan.worker.retraining.response import respond_to_drift
from peerloan.worker.time_limited_turn import TimeLimitedTurn, TurnAbandoned

log = logging.getLogger(__name__)
# Interval of checks whether a round, a delivery, or taking over the lease is due.
_LOOK_SECONDS = 5.0
# A turn without progress for this long is abandoned. Its longest step fits one candidate.
STALLED_SECONDS = 900.0
# Delay before the next round after an unexpected error.
_RETRY_MS = 600_000
_WORDS = {BEGAN: "begins", ROSE: "grows louder", ENDED: "is over"}


class Schedule:
    """Runs monitoring rounds, delivers events, and responds to drift by the config."""

    def __init__(
        self,
        database: Database,
        store: Store,
        config: MonitoringConfig,
        every_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._database, self._store, self._config = database, store, config
        self._every_ms = int(every_seconds * 1000)
        self._watcher = Watcher(database, store, config)
        self._lease = Lease(database)
        self._metrics = metrics
        self._leads: bool | None = None
        self._down = False
        self._turn: TimeLimitedTurn | None = None
        self._answered_day = self._not_before = 0

    def run(self, wait: Callable[[float], object] = time.sleep) -> None:
        """Run until the process is stopped. Errors are logged and retried."""
        try:
            while True:
                self._look()
                wait(_LOOK_SECONDS)
        finally:
            with contextlib.suppress(LedgerError):
                self._lease.end()

    def _look(self) -> None:
        """Run a turn if this process holds the lease."""
        try:
            # An abandoned turn that still runs could do the same work.
            if self._turn is not None and self._turn.is_running():
                return
            self._lead(self._lease.take())
        except LedgerError as error:
            self._note_down(error)
            return
        if self._leads:
            self._turn = TimeLimitedTurn(self._work)
            self._accompany(self._turn)

    def _accompany(self, turn: TimeLimitedTurn) -> None:
        """Renew the lease while a turn makes progress, and abandon the turn if it does not."""
        renewed = time.monotonic()
        while not turn.wait(min(RENEW_SECONDS, STALLED_SECONDS)):
            if (stalled := turn.stalled_seconds()) >= STALLED_SECONDS:
                self._give_up(turn, f"no progress for {stalled:,.0f} s")
                return
            if time.monotonic() - renewed < RENEW_SECONDS:
                continue
            renewed = time.monotonic()
            with contextlib.suppress(LedgerError):
                if not self._lease.take():
                    self._give_up(turn, "another process has taken the lease")
                    return

    def _give_up(self, turn: TimeLimitedTurn, reason: str) -> None:
        turn.abandon()
        log.error("a round is given up: %s; standing by until it ends", reason)
        self._metrics.give_up()
        self._leads = False
        self._metrics.leads(False)
        with contextlib.suppress(LedgerError):
            self._lease.end()

    def _work(self, turn: TimeLimitedTurn) -> None:
        """Run a turn: a round if one is due, then the deliveries."""
        try:
            if now_ms() >= max(self._next_ms(), self._not_before):
                self._round(turn)
            deliver_due(self._database, self._config.tell, now_ms(), turn.report_progress)
            self._down = False
        except (LedgerError, StoreFault) as error:
            self._note_down(error)
        except TurnAbandoned:
            raise
        except Exception:  # a retry may succeed
            log.exception("a round failed; the next try is in %d minutes", _RETRY_MS // 60_000)
            self._not_before = now_ms() + _RETRY_MS

    def _note_down(self, error: Exception) -> None:
        if not self._down:
            log.error("could not watch, and will go on trying: %s", error)
        self._down = True

    def _lead(self, leads: bool) -> None:
        if leads != self._leads:
            log.info("watching" if leads else f"{self._lease.holder()} watches; standing by")
        self._leads = leads
        self._metrics.leads(leads)

    def _next_ms(self) -> int:
        with self._database.reading() as connection:
            judged_ms = read_judged_ms(connection)
        return judged_ms + self._every_ms if judged_ms else 0

    def _round(self, turn: TimeLimitedTurn) -> None:
        began = time.monotonic()
        done = self._watcher.round(now_ms(), lambda _done: turn.report_progress())
        turn.report_progress()
        self._tell(done, time.monotonic() - began)
        self._metrics.count(done.counted)
        self._answer(done, turn)
        turn.report_progress()

    def _answer(self, done: Round, turn: TimeLimitedTurn) -> None:
        """Respond to alerts of level "act" about the champion: when one begins, and then daily.

        A daily retry makes sense because missing outcomes may have arrived. A repeated refusal is
        no event.
        """
        champion = self._store.state().champion or ""
        figures = done.figures.get(champion)
        acts = [] if figures is None else [each for each in figures.firing if each.level == "act"]
        fresh = any(
            model == champion and change.type != ENDED and change.alert.level == "act"
            for model, change in done.changes
        )
        today = now_ms() // DAY_MS
        if not acts or not (fresh or today != self._answered_day):
            return
        self._answered_day = today
        found = respond_to_drift(
            *(self._config, self._store, self._database, acts, now_ms()),
            progress=lambda _what, _done: turn.report_progress(),
        )
        if found is None:
            return
        log.info("%s: %s", self._config.on_drift, found.reason)
        if found.kind == "refused" and not fresh:
            return
        kind = PROMOTED if found.promoted else MADE if found.kind == "made" else REFUSED
        rules = [each._asdict() for each in acts]
        data = {"answer": self._config.on_drift, "rules": rules} | found.as_json()
        subject = found.version or champion
        with self._database.writing() as connection:
            store_event(connection, kind, subject, data, now_ms(), self._config.tell.channels)

    def _tell(self, done: Round, seconds: float) -> None:
        new = done.counted
        decisions, outcomes = plural(new.decisions, "decision"), plural(new.outcomes, "outcome")
        log.info("counted %s and %s in %.1f s", decisions, outcomes, seconds)
        for version, why in new.missing.items():
            log.warning("%s can't be watched: %s", version, why)
        if new.unreadable:
            log.warning("%s could not be read", plural(new.unreadable, "decision"))
        for name, found in done.figures.items():
            worst = max((*found.features, found.score), key=lambda each: each.psi.value)
            speaking = ", ".join(f"{each.rule} of {each.about}" for each in found.firing)
            log.info(
                "%s: %s; largest PSI %.3f, of %s; %s",
                *(name, plural(found.loans, "loan"), worst.psi.value, worst.name),
                f"speaking: {speaking}" if speaking else "calm",
            )
        for name, change in done.changes:
            log.warning(
                "%s: %s of %s %s",
                name,
                change.alert.rule,
                change.alert.about,
                _WORDS[change.type],
            )
