"""A monitoring round: count new decisions and outcomes, evaluate the rules, store events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from sqlalchemy import Connection

from peerloan.clock import DAY_MS, HOUR_MS, date_of, day_number
from peerloan.database import Database
from peerloan.monitoring.alerts import rules
from peerloan.monitoring.alerts.lifecycle import (
    AlertChange,
    active_alerts_by_version_number,
    update_alerts,
)
from peerloan.monitoring.alerts.rules import Alert
from peerloan.monitoring.config import MonitoringConfig
from peerloan.monitoring.counting.counts import Counts
from peerloan.monitoring.counting.decisions import Progress, count_new
from peerloan.monitoring.counting.early_outcomes import EarlyOutcomes
from peerloan.monitoring.counting.outcomes import count_outcomes
from peerloan.monitoring.counting.storage import (
    Hour,
    advance_judged_ms,
    read_judged_ms,
    read_known_outcomes,
    set_back_judged_ms,
    store_figures,
)
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.monitoring.window_metrics import WindowMetrics, metrics_json
from peerloan.monitoring.windows import History, Window, read_window, window_figures, window_json
from peerloan.registry import Store

log = logging.getLogger(__name__)
# Number of earlier windows that the volume of a window is compared with.
_VOLUME_WINDOWS = 4
# Number of windows whose outcomes are used together, because late loans are rare.
_OUTCOME_WINDOWS = 4
# Largest difference between the clocks of several machines.
_CLOCK_TOLERANCE_MS = 60_000
# Most days to evaluate one by one after a pause.
_MAX_DAYS = 366


@dataclass
class Round:
    """The result of a round.

    `counted` is the counting progress, `figures` those of the newest window by version name,
    `changes` the changed alerts with the name of their version.
    """

    counted: Progress
    figures: dict[str, WindowMetrics] = field(default_factory=dict)
    changes: list[tuple[str, AlertChange]] = field(default_factory=list)


@dataclass
class _WindowResult:
    """A version's window: its figures (None without loans) and its alerts."""

    number: int
    name: str
    loans: int
    figures: WindowMetrics | None
    firing: list[Alert]
    persisting: list[Alert]


@dataclass(frozen=True)
class _Ledger:
    """The state of the ledger at the start of a round: versions, daily counts, early outcomes."""

    versions: VersionCache
    history: History
    early: dict[Hour, Counts]

    def window(self, connection: Connection, first: int, last: int) -> dict[int, Counts]:
        """Read the counts of some hours by version, without early outcomes."""
        return read_window(connection, self.versions, Window(first, last), self.early)


class Monitor:
    """Monitors the versions of a ledger. Only one process may run a round at a time."""

    def __init__(self, database: Database, store: Store, config: MonitoringConfig) -> None:
        self._database, self._store, self._config = database, store, config
        self._hours = config.window_days * 24
        self._early = EarlyOutcomes()

    def round(self, now_ms: int, progress: Callable[[float], None] = lambda _done: None) -> Round:
        """Count, evaluate the rules, and store events. Raises LedgerError or StoreFault.

        `now_ms` is the end of the newest window (milliseconds since 1970). Days that ended since
        the last round are evaluated one by one, with the outcomes that are known now. The first
        round evaluates the days of some earlier windows, but without alerts.
        """
        counted = count_new(self._database, self._store, progress)
        count_outcomes(self._database, self._store, counted)
        done = Round(counted)
        judged_ms = self._judged_ms(now_ms)
        with self._database.reading() as connection:
            versions = VersionCache(connection, self._store)
            last = now_ms // HOUR_MS + 1
            early = self._early.read(connection, versions)
            known_outcomes = read_known_outcomes(
                connection, last - self._reach(versions) * 24, last
            )
            ledger = _Ledger(versions, History(known_outcomes, early), early)
        is_first = judged_ms == 0
        if is_first:
            judged_ms = now_ms - self._config.window_days * _VOLUME_WINDOWS * DAY_MS
        for moment in _moments(judged_ms, now_ms):
            with_alerts = not is_first or moment == now_ms
            self._evaluate(ledger, moment, with_alerts, done)
        self._store_months(ledger, {date_of(day).replace(day=1) for day in counted.days})
        return done

    def _judged_ms(self, now_ms: int) -> int:
        """Return the time up to which the rules were applied, but not later than now.

        It is later than now if the clock was set back; then the stored time is set back too.
        """
        with self._database.reading() as connection:
            judged_ms = read_judged_ms(connection)
        if judged_ms <= now_ms + _CLOCK_TOLERANCE_MS:
            return judged_ms
        log.warning(
            "the clock was set back: the rules were already applied up to %.0f hours ahead of it; "
            "they are applied again from now on",
            (judged_ms - now_ms) / HOUR_MS,
        )
        with self._database.writing() as connection:
            set_back_judged_ms(connection, judged_ms, now_ms - 1)
        return now_ms - 1

    def _reach(self, versions: VersionCache) -> int:
        """Return the number of days before now whose outcomes may be needed."""
        loaded = map(versions.load, versions.known)
        last_days = [
            version.bundle.definition.roles.horizon[1] for version in loaded if version is not None
        ]
        windows = _VOLUME_WINDOWS + 1 + _OUTCOME_WINDOWS
        return max(last_days, default=0) + self._config.window_days * windows

    def _evaluate(self, ledger: _Ledger, moment: int, with_alerts: bool, done: Round) -> None:
        """Evaluate the windows that end at a moment, and store figures and alerts."""
        end = -(-moment // HOUR_MS)
        versions = ledger.versions
        with self._database.reading() as connection:
            counts = ledger.window(connection, end - self._hours, end)
            active = active_alerts_by_version_number(connection)
        champion = self._champion(versions)
        numbers = {*counts, *active} | ({champion} if champion else set())
        # A champion without loans has no figures, so its alerts persist, except for its volume's.
        # Any other version without loans is not used any more, and its alerts end.
        persisting = [
            alert for alert in active.get(champion or 0, []) if alert.rule != rules.VOLUME
        ]
        results = [
            self._window_result(
                ledger, number, counts.get(number), persisting if number == champion else [], end
            )
            for number in sorted(numbers & versions.known.keys())
        ]
        for result in results:
            if result.number == champion:
                self._add_volume_alerts(result, ledger.history, counts, end)
        done.figures = {result.name: result.figures for result in results if result.figures}
        with self._database.writing() as connection:
            advance_judged_ms(connection, moment)
            for result in results:
                window = window_json(end - self._hours, end) | {"loans": result.loans}
                if result.figures:
                    figures = {"window": window} | metrics_json(result.figures)
                    day = (moment - 1) // DAY_MS
                    store_figures(connection, result.number, "day", day, figures)
                if with_alerts:
                    changes = update_alerts(
                        connection,
                        (result.number, result.name),
                        result.firing,
                        result.persisting,
                        window,
                        moment,
                        self._config.tell.channels,
                    )
                    done.changes += [(result.name, change) for change in changes]

    def _window_result(
        self,
        ledger: _Ledger,
        number: int,
        counts: Counts | None,
        persisting: list[Alert],
        end: int,
    ) -> _WindowResult:
        """Evaluate a version's window that ends at an hour; without loans, return `persisting`."""
        name = ledger.versions.known[number].version
        config = self._config
        if counts is not None:
            days = config.window_days * _OUTCOME_WINDOWS
            outcomes = ledger.history.mature(number, -(-end // 24), config.mature, days)
            figures = window_figures(ledger.versions, number, counts, config.limits, outcomes)
            if figures is not None:
                return _WindowResult(
                    number, name, counts.loans, figures, figures.firing, figures.persisting
                )
        return _WindowResult(number, name, 0, None, [], persisting)

    def _add_volume_alerts(
        self, champion: _WindowResult, history: History, counts: dict[int, Counts], end: int
    ) -> None:
        """Apply the rule of the volume to the loans of all versions, and add its alerts."""
        loans = sum(version_counts.loans for version_counts in counts.values())
        before = history.volumes(end, self._hours, _VOLUME_WINDOWS)
        limits = self._config.limits
        champion.firing.extend(rules.check_volume(limits, loans, before))
        champion.persisting.extend(
            rules.check_volume(limits.with_hysteresis(), loans, before, is_active=True)
        )

    def _champion(self, versions: VersionCache) -> int | None:
        """Return the champion's number in the ledger; None if it made no decision yet."""
        state = self._store.state()
        for number, version in versions.known.items():
            if (version.version, version.digest) == (
                state.champion,
                state.digests.get(version.version),
            ):
                return number
        return None

    def _store_months(self, ledger: _Ledger, months: Iterable[date]) -> None:
        """Store the figures of complete months, with all known outcomes."""
        for month in sorted(months):
            following = (month + timedelta(days=31)).replace(day=1)
            first, last = (day_number(day) * 24 for day in (month, following))
            with self._database.reading() as connection:
                counts = ledger.window(connection, first, last)
            limits = self._config.limits
            metrics = {
                number: window_figures(ledger.versions, number, version_counts, limits)
                for number, version_counts in counts.items()
            }
            with self._database.writing() as connection:
                for number, of_month in metrics.items():
                    if of_month:
                        window = window_json(first, last) | {"loans": of_month.loans}
                        figures = {"window": window} | metrics_json(of_month)
                        store_figures(connection, number, "month", first // 24, figures)


def _moments(judged_ms: int, now_ms: int) -> Iterator[int]:
    """Yield the end of each day since the last evaluation, then now."""
    ends = range(judged_ms // DAY_MS + 1, -(-now_ms // DAY_MS))
    for day in ends[-_MAX_DAYS:]:
        yield day * DAY_MS
    yield now_ms
