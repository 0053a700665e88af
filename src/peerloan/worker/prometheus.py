"""The worker's metrics for Prometheus.

Most are read from the ledger at each scrape. So a process that was restarted or that stands by
reports the same values as the process that monitors.
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
from peerloan.monitoring.queries import active_alerts_by_name, figures_of_day, pending_events

_FIGURES = ("auc", "recall", "late_rate")


class Metrics:
    """Metrics of the newest round and of this process."""

    def __init__(self, database: Database, every_seconds: float) -> None:
        self._registry = registry = CollectorRegistry()
        self._leads = Gauge(
            "peerloan_monitor_leader",
            "1 while this process is the one that watches.",
            registry=registry,
        )
        self._counted = Counter(
            "peerloan_monitor_decisions",
            "Decisions that this process counted.",
            registry=registry,
        )
        self._given_up = Counter(
            "peerloan_monitor_rounds_given_up",
            "Rounds that this process gave up because they made no progress.",
            registry=registry,
        )
        Gauge("peerloan_monitor_interval_seconds", "Between two rounds.", registry=registry).set(
            every_seconds
        )
        registry.register(_Ledger(database))

    def serve(self, host: str, port: int) -> None:
        """Start the metrics endpoint. Raises OSError."""
        start_http_server(port, host, self._registry)

    def leads(self, leads: bool) -> None:
        """Set whether this process monitors."""
        self._leads.set(leads)

    def give_up(self) -> None:
        """Count a round that was abandoned."""
        self._given_up.inc()

    def count(self, counted: Progress) -> None:
        """Add the decisions that a round counted."""
        self._counted.inc(counted.decisions)


class _Gauge:
    """A gauge with labels. The last value for the same labels is exported."""

    def __init__(self, name: str, what: str, *labels: str) -> None:
        self._name, self._what, self._labels = f"peerloan_{name}", what, labels
        self._values: dict[tuple[str, ...], float] = {}

    def set(self, value: float, *labels: str) -> None:
        self._values[labels] = value

    def family(self) -> Metric:
        """Convert it to a metric of the library."""
        shown = GaugeMetricFamily(self._name, self._what, labels=self._labels)
        for labels, value in self._values.items():
            shown.add_metric(labels, value)
        return shown


class _Ledger(Collector):
    """Collects metrics from the ledger.

    If it does not respond, only its availability is exported.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the metrics are known only once the ledger is read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        answers = _Gauge("monitor_ledger_available", "1 if the ledger answers.")
        shown: list[_Gauge] = []
        try:
            with self._database.reading() as connection:
                shown = [*_of_round(connection), *_of_alarms(connection)]
            answers.set(1)
        except LedgerError:
            answers.set(0)
        for gauge in (answers, *shown):
            yield gauge.family()


def _of_round(connection: Connection) -> Iterable[_Gauge]:
    """Collect the newest round: its time, and the figures of each version."""
    judged = _Gauge("monitor_round_timestamp_seconds", "When rules were applied last; 0: never.")
    loans = _Gauge("window_loans", "Loans in the newest window.", "model")
    psi = _Gauge("drift_psi", "PSI of a feature, or of the probability.", "model", "about")
    estimated = _Gauge("estimated", "Estimated auc, recall, late_rate.", "model", "figure")
    realised = _Gauge("realised", "Realised auc, recall, late_rate.", "model", "figure")
    ratio = _Gauge(
        "calibration_ratio",
        "Late loans, of those expected: the value, and its 95 % interval's low and high end.",
        *("model", "figure"),
    )
    judged_ms = read_judged_ms(connection)
    judged.set(judged_ms / 1000)
    for model, said in figures_of_day(connection, (judged_ms - 1) // DAY_MS):
        loans.set(said["window"]["loans"], model)
        for each in said["features"]:
            psi.set(each["psi"], model, each["feature"])
        psi.set(said["score"]["psi"], model, "probability")
        for gauge, found in ((estimated, said["estimated"]), (realised, said["realised"] or {})):
            for figure in _FIGURES:
                if found.get(figure) is not None:
                    gauge.set(found[figure]["value"], model, figure)
        if said["calibration"] is not None:
            for figure in ("value", "low", "high"):
                ratio.set(said["calibration"]["ratio"][figure], model, figure)
    return judged, loans, psi, estimated, realised, ratio


def _of_alarms(connection: Connection) -> Iterable[_Gauge]:
    """Collect the active alerts and the pending events."""
    speaking = _Gauge("alarm", "1 while a rule speaks.", "model", "rule", "about", "level")
    for model, alarm in active_alerts_by_name(connection):
        speaking.set(1, model, alarm.rule, alarm.about, alarm.level)
    waiting = pending_events(connection)
    unacknowledged = _Gauge("events_unacknowledged", "Events that nobody has taken note of.")
    unacknowledged.set(waiting.unacknowledged)
    loud = _Gauge(
        "events_act_unacknowledged_timestamp_seconds",
        "The oldest alarm of level act that nobody has taken note of; 0: none.",
    )
    loud.set(waiting.oldest_act_ms / 1000)
    undelivered = _Gauge("events_undelivered", "Events that a channel was not told yet.")
    undelivered.set(waiting.undelivered)
    late = _Gauge(
        "events_undelivered_timestamp_seconds",
        "The oldest event that a channel was not told yet; 0: none.",
    )
    late.set(waiting.oldest_undelivered_ms / 1000)
    return speaking, unacknowledged, loud, undelivered, late
