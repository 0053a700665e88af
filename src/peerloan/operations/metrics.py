"""What Prometheus is told of watching."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from sqlalchemy import func, select

from peerloan.ledger import Database
from peerloan.ledger.schema import alarms, deliveries, events, versions
from peerloan.monitoring.estimates import Estimate
from peerloan.monitoring.figures import Watched
from peerloan.operations.watching import Round


class Metrics:
    """Figures of the newest round, for whoever watches the watching."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"peerloan_{name}", what, labels, registry=registry)

        self._leads = gauge("monitor_leader", "1 while this process is the one that watches.")
        self._round = gauge("monitor_round_timestamp_seconds", "When a round was done last.")
        self._counted = Counter(
            "peerloan_monitor_decisions", "Decisions counted.", registry=registry
        )
        self._psi = gauge("drift_psi", "PSI of a feature, or of the probability.", "model", "about")
        self._loans = gauge("window_loans", "Loans in the newest window.", "model")
        self._estimated = gauge("estimated", "Estimated auc, recall, late_rate.", "model", "figure")
        self._realised = gauge("realised", "Realised auc, recall, late_rate.", "model", "figure")
        self._ratio = gauge("calibration_ratio", "Late loans, of those expected.", "model")
        self._alarms = gauge("alarm", "1 while a rule speaks.", "model", "rule", "about", "level")
        self._open = gauge("events_unacknowledged", "Events that nobody has taken note of.")
        self._undelivered = gauge("events_undelivered", "Events that a channel was not told yet.")

    def serve(self, host: str, port: int) -> None:
        """Answer Prometheus; raises OSError."""
        start_http_server(port, host, self._registry)

    def leads(self, leads: bool) -> None:
        """Whether this process watches."""
        self._leads.set(leads)

    def show(self, database: Database, done: Round) -> None:
        """Show a round; what is no longer said goes."""
        self._round.set(time.time())
        self._counted.inc(done.counted.decisions)
        of_models = self._psi, self._loans, self._estimated, self._realised, self._ratio
        for gauge in (*of_models, self._alarms):
            gauge.clear()
        for name, found in done.figures.items():
            self._show(name, found)
        with database.reading() as connection:
            names = select(alarms, versions.c.version.label("model")).join(
                versions, versions.c.number == alarms.c.version
            )
            for row in connection.execute(names):
                self._alarms.labels(row.model, row.rule, row.about, row.level).set(1)
            unseen = select(func.count()).where(events.c.acknowledged_ms.is_(None))
            self._open.set(connection.execute(unseen).scalar_one())
            waiting = select(func.count()).where(deliveries.c.next_ms.is_not(None))
            self._undelivered.set(connection.execute(waiting).scalar_one())

    def _show(self, name: str, found: Watched) -> None:
        self._loans.labels(name).set(found.loans)
        for each in (*found.features, found.score):
            self._psi.labels(name, each.name).set(each.psi.value)
        for gauge, figures in (
            (self._estimated, found.estimated),
            (self._realised, found.realised),
        ):
            for figure in ("auc", "recall", "late_rate"):
                estimate: Estimate | None = getattr(figures, figure, None)
                if estimate is not None:
                    gauge.labels(name, figure).set(estimate.value)
        if found.calibration is not None:
            self._ratio.labels(name).set(found.calibration.ratio.value)
