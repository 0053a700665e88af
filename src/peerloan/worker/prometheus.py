"""The worker's metrics for Prometheus.

Most metrics are read from the ledger at each scrape. So a process that was restarted or that stands
by reports the same values as the process that monitors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from peerloan.clock import DAY_MS
from peerloan.database import Database, LedgerError
from peerloan.monitoring.counting.decisions import Progress
from peerloan.monitoring.counting.storage import read_judged_ms
from peerloan.monitoring.queries import (
    active_alerts_by_version_name,
    figures_of_day,
    pending_events,
)

_FIGURES = ("auc", "recall", "late_rate")


class Metrics:
    """Metrics of the newest round and of this process. Thread-safe."""

    def __init__(self, database: Database, every_seconds: float) -> None:
        self.registry = registry = CollectorRegistry()
        self._leader = Gauge(
            "peerloan_monitor_leader",
            "1 if this process holds the lease and monitors, else 0.",
            registry=registry,
        )
        self._counted = Counter(
            "peerloan_monitor_decisions",
            "Decisions that this process has counted.",
            registry=registry,
        )
        self._abandoned = Counter(
            "peerloan_monitor_rounds_given_up",
            "Rounds that this process abandoned, because they made no progress or another process "
            "took the lease.",
            registry=registry,
        )
        Gauge(
            "peerloan_monitor_interval_seconds",
            "Configured seconds between two rounds.",
            registry=registry,
        ).set(every_seconds)
        registry.register(_Ledger(database))

    def serve(self, host: str, port: int) -> None:
        """Start the metrics endpoint. Raises OSError."""
        start_http_server(port, host, self.registry)

    def set_leader(self, is_leader: bool) -> None:
        """Set whether this process monitors."""
        self._leader.set(is_leader)

    def count_abandoned(self) -> None:
        """Count a round that was abandoned."""
        self._abandoned.inc()

    def count_decisions(self, counted: Progress) -> None:
        """Add the decisions that a round counted."""
        self._counted.inc(counted.decisions)


class _Gauge:
    """A gauge with labels. The last value for the same labels is exported."""

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self._name, self._help_text, self._labels = f"peerloan_{name}", help_text, labels
        self._values: dict[tuple[str, ...], float] = {}

    def set(self, value: float, *labels: str) -> None:
        """Set the value for these labels."""
        self._values[labels] = value

    def family(self) -> Metric:
        """Convert it to a metric of prometheus_client."""
        family = GaugeMetricFamily(self._name, self._help_text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return family


class _Ledger(Collector):
    """Collects metrics from the ledger.

    If the ledger does not respond, only its availability is exported.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Return nothing, because the metrics are known only after the ledger is read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        available = _Gauge("monitor_ledger_available", "1 if the ledger can be read, else 0.")
        gauges: list[_Gauge] = []
        try:
            with self._database.reading() as connection:
                gauges = [*_round_gauges(connection), *_alert_gauges(connection)]
            available.set(1)
        except LedgerError:
            available.set(0)
        for gauge in (available, *gauges):
            yield gauge.family()


def _round_gauges(connection: Connection) -> Iterable[_Gauge]:
    """Collect the time of the newest round, and the figures of each version."""
    judged = _Gauge(
        "monitor_round_timestamp_seconds",
        "When the rules were last applied, in Unix time; 0: never.",
    )
    loans = _Gauge("window_loans", "Loans in the newest window of a version.", "model")
    psi = _Gauge(
        "drift_psi",
        "Population stability index (PSI) of a feature or of the probability.",
        "model",
        "about",
    )
    estimated = _Gauge(
        "estimated",
        "Figure estimated without outcomes: auc, recall or late_rate.",
        "model",
        "figure",
    )
    realised = _Gauge(
        "realised", "Figure of known outcomes: auc, recall or late_rate.", "model", "figure"
    )
    ratio = _Gauge(
        "calibration_ratio",
        "Late loans divided by the expected number: value, and ends of its 95 % interval.",
        *("model", "figure"),
    )
    judged_ms = read_judged_ms(connection)
    judged.set(judged_ms / 1000)
    for model, stored in figures_of_day(connection, (judged_ms - 1) // DAY_MS):
        loans.set(stored["window"]["loans"], model)
        for drift in stored["features"]:
            psi.set(drift["psi"], model, drift["feature"])
        psi.set(stored["score"]["psi"], model, "probability")
        realised_figures = stored["realised"] or {}
        for gauge, figures in ((estimated, stored["estimated"]), (realised, realised_figures)):
            for figure in _FIGURES:
                if figures.get(figure) is not None:
                    gauge.set(figures[figure]["value"], model, figure)
        if stored["calibration"] is not None:
            for figure in ("value", "low", "high"):
                ratio.set(stored["calibration"]["ratio"][figure], model, figure)
    return judged, loans, psi, estimated, realised, ratio


def _alert_gauges(connection: Connection) -> Iterable[_Gauge]:
    """Collect the active alerts and the pending events."""
    active = _Gauge("alarm", "1 while an alert is active.", "model", "rule", "about", "level")
    for model, alert in active_alerts_by_version_name(connection):
        active.set(1, model, alert.rule, alert.about, alert.level)
    pending = pending_events(connection)
    unacknowledged = _Gauge("events_unacknowledged", "Events without an acknowledgement.")
    unacknowledged.set(pending.unacknowledged)
    oldest_act = _Gauge(
        "events_act_unacknowledged_timestamp_seconds",
        "Unix time of the oldest alert of level act without an acknowledgement; 0: none.",
    )
    oldest_act.set(pending.oldest_act_ms / 1000)
    undelivered = _Gauge(
        "events_undelivered", "Deliveries of events to a channel that are pending."
    )
    undelivered.set(pending.undelivered)
    oldest_undelivered = _Gauge(
        "events_undelivered_timestamp_seconds",
        "Unix time of the oldest event with a pending delivery; 0: none.",
    )
    oldest_undelivered.set(pending.oldest_undelivered_ms / 1000)
    return active, unacknowledged, oldest_act, undelivered, oldest_undelivered
