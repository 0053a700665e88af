"""The worker's schedule: runs rounds at an interval, in one process at a time."""

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
from peerloan.worker.monitoring_round import Monitor, Round
from peerloan.worker.prometheus import Metrics
from peerloan.worker.retraining.response import respond_to_drift
from peerloan.worker.time_limited_turn import TimeLimitedTurn, TurnAbandoned

log = logging.getLogger(__name__)
# Seconds between two checks whether a round or a delivery is due or the lease is free.
_CHECK_SECONDS = 5.0
# A turn without progress for this long is abandoned. The longest step is to fit one candidate.
STALLED_SECONDS = 900.0
# Delay before the next round after an unexpected error.
_RETRY_MS = 600_000
_CHANGE_TEXTS = {BEGAN: "has begun", ROSE: "has risen to act", ENDED: "has ended"}


class Schedule:
    """Runs monitoring rounds, delivers events, and responds to drift as the config requires.

    A turn without progress for `stalled_seconds` is abandoned. Methods are called by one thread.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        config: MonitoringConfig,
        every_seconds: float,
        metrics: Metrics,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        self._database, self._store, self._config = database, store, config
        self._every_ms = int(every_seconds * 1000)
        self._watcher = Monitor(database, store, config)
        self._lease = Lease(database)
        self._metrics = metrics
        self._stalled_seconds = stalled_seconds
        self._is_leader: bool | None = None
        self._has_failed = False
        self._turn: TimeLimitedTurn | None = None
        # The day of the last response to drift, and the earliest time of the next round.
        self._response_day = self._not_before_ms = 0

    @property
    def is_leader(self) -> bool:
        """Whether this process holds the lease and monitors."""
        return bool(self._is_leader)

    def run(self, wait: Callable[[float], object] = time.sleep) -> None:
        """Run until the process is stopped. Errors are logged and retried."""
        try:
            while True:
                self.run_if_leader()
                wait(_CHECK_SECONDS)
        finally:
            with contextlib.suppress(LedgerError):
                self._lease.end()

    def run_if_leader(self) -> None:
        """Run a turn if this process holds the lease. Errors of the ledger are logged."""
        try:
            # While an abandoned turn still runs, a second one could do the same work.
            if self._turn is not None and self._turn.is_running():
                return
            self._set_leader(self._lease.take())
        except LedgerError as error:
            self._log_failure(error)
            return
        if self._is_leader:
            self._turn = TimeLimitedTurn(self._work)
            self._supervise(self._turn)

    def _supervise(self, turn: TimeLimitedTurn) -> None:
        """Renew the lease while a turn makes progress, and abandon the turn if it does not."""
        renewed = time.monotonic()
        while not turn.wait(min(RENEW_SECONDS, self._stalled_seconds)):
            if (stalled := turn.stalled_seconds()) >= self._stalled_seconds:
                self._abandon(turn, f"no progress for {stalled:,.0f} s")
                return
            if time.monotonic() - renewed < RENEW_SECONDS:
                continue
            renewed = time.monotonic()
            with contextlib.suppress(LedgerError):
                if not self._lease.take():
                    self._abandon(turn, "another process has taken the lease")
                    return

    def _abandon(self, turn: TimeLimitedTurn, reason: str) -> None:
        turn.abandon()
        log.error("a monitoring round is abandoned: %s; standing by until it ends", reason)
        self._metrics.count_abandoned()
        self._is_leader = False
        self._metrics.set_leader(False)
        with contextlib.suppress(LedgerError):
            self._lease.end()

    def _work(self, turn: TimeLimitedTurn) -> None:
        """Run a turn: a round if one is due, then the deliveries."""
        try:
            if now_ms() >= max(self._next_ms(), self._not_before_ms):
                self._round(turn)
            deliver_due(self._database, self._config.tell, now_ms(), turn.report_progress)
            self._has_failed = False
        except (LedgerError, StoreFault) as error:
            self._log_failure(error)
        except TurnAbandoned:
            raise
        except Exception:  # a retry may succeed
            minutes = _RETRY_MS // 60_000
            log.exception("a monitoring round failed; it is tried again in %d minutes", minutes)
            self._not_before_ms = now_ms() + _RETRY_MS

    def _log_failure(self, error: Exception) -> None:
        """Log the first of several failures in a row."""
        if not self._has_failed:
            log.error("monitoring failed and will be tried again: %s", error)
        self._has_failed = True

    def _set_leader(self, is_leader: bool) -> None:
        if is_leader != self._is_leader:
            log.info("monitoring" if is_leader else f"{self._lease.holder()} monitors; standing by")
        self._is_leader = is_leader
        self._metrics.set_leader(is_leader)

    def _next_ms(self) -> int:
        """Return the time of the next round in milliseconds since 1970; 0: now."""
        with self._database.reading() as connection:
            judged_ms = read_judged_ms(connection)
        return judged_ms + self._every_ms if judged_ms else 0

    def _round(self, turn: TimeLimitedTurn) -> None:
        began = time.monotonic()
        done = self._watcher.round(now_ms(), lambda _done: turn.report_progress())
        turn.report_progress()
        _log_round(done, time.monotonic() - began)
        self._metrics.count_decisions(done.counted)
        self._respond(done, turn)
        turn.report_progress()

    def _respond(self, done: Round, turn: TimeLimitedTurn) -> None:
        """Respond to alerts of level "act" about the champion: when one begins, and then daily.

        The response is repeated daily, because missing outcomes may have arrived. A repeated
        refusal is no event.
        """
        champion = self._store.state().champion or ""
        figures = done.figures.get(champion)
        acts = [] if figures is None else [a for a in figures.firing if a.level == "act"]
        has_new_act = any(
            version == champion and change.type != ENDED and change.alert.level == "act"
            for version, change in done.changes
        )
        today = now_ms() // DAY_MS
        if not acts or not (has_new_act or today != self._response_day):
            return
        self._response_day = today
        response = respond_to_drift(
            self._config,
            self._store,
            self._database,
            acts,
            now_ms(),
            progress=lambda _what, _done: turn.report_progress(),
        )
        if response is None:
            return
        log.info("%s: %s", self._config.on_drift, response.reason)
        if response.kind == "refused" and not has_new_act:
            return
        kind = PROMOTED if response.promoted else MADE if response.kind == "made" else REFUSED
        rules = [alert._asdict() for alert in acts]
        data = {"answer": self._config.on_drift, "rules": rules} | response.as_json()
        subject = response.version or champion
        with self._database.writing() as connection:
            store_event(connection, kind, subject, data, now_ms(), self._config.tell.channels)


def _log_round(done: Round, seconds: float) -> None:
    """Log the result of a round that took this many seconds."""
    counted = done.counted
    decisions = plural(counted.decisions, "decision")
    log.info("counted %s and %s in %.1f s", decisions, plural(counted.outcomes, "outcome"), seconds)
    for version, reason in counted.missing.items():
        log.warning("%s can't be monitored: %s", version, reason)
    if counted.unreadable:
        log.warning("%s could not be read", plural(counted.unreadable, "decision"))
    for version, metrics in done.figures.items():
        worst = max((*metrics.features, metrics.score), key=lambda drift: drift.psi.value)
        firing = ", ".join(f"{alert.rule} of {alert.about}" for alert in metrics.firing)
        log.info(
            "%s: %s; largest PSI %.3f, of %s; %s",
            version,
            plural(metrics.loans, "loan"),
            worst.psi.value,
            worst.name,
            f"alerts: {firing}" if firing else "no alerts",
        )
    for version, change in done.changes:
        log.warning(
            "%s: alert %s of %s %s",
            version,
            change.alert.rule,
            change.alert.about,
            _CHANGE_TEXTS[change.type],
        )
