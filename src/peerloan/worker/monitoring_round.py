"""A monitoring round: count new decisions and outcomes, evaluate the rules, record events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from sqlalchemy import Connection

from peerloan.clock import DAY_MS, HOUR_MS, date_of, day_number
from peerloan.database import Database
from peerloan.monitoring.alerts import rules
from peerloan.monitoring.alerts.lifecycle import AlertChange, active_alerts, update_alerts
from peerloan.monitoring.alerts.rules import Alert
from peerloan.monitoring.config import MonitoringConfig
from peerloan.monitoring.counting.counts import Counts
from peerloan.monitoring.counting.decisions import Progress, count_new
from peerloan.monitoring.counting.early_outcomes import EarlyOutcomes
from peerloan.monitoring.counting.outcomes import count_outcomes
from peerloan.monitoring.counting.storage import (
    Hour,
    advance_judged_ms,
    keep_figures,
    read_judged_ms,
    read_known_outcomes,
    set_back_judged_ms,
)
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.monitoring.window_metrics import WindowMetrics, metrics_json
from peerloan.monitoring.windows import History, Window, read_window, window_figures, window_json
from peerloan.registry import Store

log = logging.getLogger(__name__)
# The volume of a window is compared with this many windows before it.
_BEFORE = 4
# Outcomes of this many windows are used, because late loans are rare.
_OF_OUTCOMES = 4
# Largest difference between the clocks of several machines.
_AHEAD_MS = 60_000
# Most days to evaluate one by one after a pause.
_CATCH_UP = 366


@dataclass
class Round:
    """The result of a round: counting progress, figures of each newest window, changed alerts."""

    counted: Progress
    figures: dict[str, WindowMetrics] = field(default_factory=dict)
    changes: list[tuple[str, AlertChange]] = field(default_factory=list)


@dataclass
class _WindowResult:
    """The figures and alerts of a version's window."""

    number: int
    name: str
    loans: int
    figures: WindowMetrics | None
    firing: list[Alert]
    persisting: list[Alert]


@dataclass(frozen=True)
class _Ledger:
    """The state that a round has read: versions, figures of each day, and early outcomes."""

    versions: VersionCache
    history: History
    early: dict[Hour, Counts]

    def window(self, connection: Connection, first: int, last: int) -> dict[int, Counts]:
        """Read the counts of some hours by version, without early outcomes."""
        return read_window(connection, self.versions, Window(first, last), self.early)


class Watcher:
    """Monitors the versions of a ledger by a config. One process may run a round at a time."""

    def __init__(self, database: Database, store: Store, config: MonitoringConfig) -> None:
        self._database, self._store, self._config = database, store, config
        self._hours = config.window_days * 24
        self._early = EarlyOutcomes()

    def round(self, now_ms: int, progress: Callable[[float], None] = lambda _done: None) -> Round:
        """Count, evaluate the rules, and record events. Raises LedgerError.

        Days that ended since the last round are evaluated one by one, with the outcomes that are
        known now. The first round evaluates the days of some earlier windows, without alerts.
        """
        counted = count_new(self._database, self._store, progress)
        count_outcomes(self._database, self._store, counted)
        done = Round(counted)
        judged_ms = self._judged_ms(now_ms)
        with self._database.reading() as connection:
            versions = VersionCache(connection, self._store)
            last = now_ms // HOUR_MS + 1
            early = self._early.read(connection, versions)
            known = read_known_outcomes(connection, last - self._reach(versions) * 24, last)
            found = _Ledger(versions, History(known, early), early)
        first = judged_ms == 0
        if first:
            judged_ms = now_ms - self._config.window_days * _BEFORE * DAY_MS
        for moment in _moments(judged_ms, now_ms):
            with_alarms = not first or moment == now_ms
            self._judge(found, moment, with_alarms, done)
        self._keep_months(found, {date_of(day).replace(day=1) for day in counted.days})
        return done

    def _judged_ms(self, now_ms: int) -> int:
        """The time up to which the rules were applied; if the clock was set back, at most now."""
        with self._database.reading() as connection:
            judged_ms = read_judged_ms(connection)
        if judged_ms <= now_ms + _AHEAD_MS:
            return judged_ms
        log.warning(
            "the rules were applied up to %.0f hours ahead of the clock, which was set back: they "
            "are applied by the clock again",
            (judged_ms - now_ms) / HOUR_MS,
        )
        with self._database.writing() as connection:
            set_back_judged_ms(connection, judged_ms, now_ms - 1)
        return now_ms - 1

    def _reach(self, versions: VersionCache) -> int:
        """The number of days before now whose outcomes may be needed."""
        opened = map(versions.load, versions.known)
        horizons = [each.bundle.definition.roles.horizon[1] for each in opened if each is not None]
        return max(horizons, default=0) + self._config.window_days * (_BEFORE + 1 + _OF_OUTCOMES)

    def _judge(self, found: _Ledger, moment: int, with_alarms: bool, done: Round) -> None:
        end = -(-moment // HOUR_MS)
        versions, history = found.versions, found.history
        with self._database.reading() as connection:
            counts = found.window(connection, end - self._hours, end)
            loud = active_alerts(connection)
        champion = self._champion(versions)
        numbers = {*counts, *loud} | ({champion} if champion else set())
        # A champion without loans has no figures; any other version without loans is out of use.
        staying = {
            number: [each for each in own if each.rule != rules.VOLUME]
            for number, own in loud.items()
            if number == champion
        }
        said = [
            self._say(versions, history, number, counts.get(number), staying.get(number, []), end)
            for number in sorted(numbers & versions.known.keys())
        ]
        if champion is not None:
            loans = sum(each.loans for each in counts.values())
            before = history.volumes(end, self._hours, _BEFORE)
            limits = self._config.limits
            own = next(each for each in said if each.number == champion)
            own.firing.extend(rules.check_volume(limits, loans, before))
            own.persisting.extend(
                rules.check_volume(limits.with_hysteresis(), loans, before, is_active=True)
            )
        done.figures = {each.name: each.figures for each in said if each.figures}
        with self._database.writing() as connection:
            advance_judged_ms(connection, moment)
            for each in said:
                window = window_json(end - self._hours, end) | {"loans": each.loans}
                if each.figures:
                    kept = {"window": window} | metrics_json(each.figures)
                    keep_figures(connection, each.number, "day", (moment - 1) // DAY_MS, kept)
                if with_alarms:
                    changes = update_alerts(
                        *(connection, (each.number, each.name), each.firing, each.persisting),
                        *(window, moment, self._config.tell.channels),
                    )
                    done.changes += [(each.name, change) for change in changes]

    def _say(
        self,
        versions: VersionCache,
        history: History,
        number: int,
        counts: Counts | None,
        staying: Sequence[Alert],
        end: int,
    ) -> _WindowResult:
        """Compute the figures of a version; without loans, its remaining alerts only."""
        name = versions.known[number].version
        config = self._config
        if counts is not None:
            days = config.window_days * _OF_OUTCOMES
            outcomes = history.mature(number, -(-end // 24), config.mature, days)
            found = window_figures(versions, number, counts, config.limits, outcomes)
            if found is not None:
                return _WindowResult(
                    number, name, counts.loans, found, found.firing, found.persisting
                )
        return _WindowResult(number, name, 0, None, [], list(staying))

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

    def _keep_months(self, ledger: _Ledger, months: Iterable[date]) -> None:
        """Store the figures of whole months, with all outcomes that are known."""
        for month in sorted(months):
            following = (month + timedelta(days=31)).replace(day=1)
            first, last = (day_number(day) * 24 for day in (month, following))
            with self._database.reading() as connection:
                counts = ledger.window(connection, first, last)
            limits = self._config.limits
            said = {
                number: window_figures(ledger.versions, number, own, limits)
                for number, own in counts.items()
            }
            with self._database.writing() as connection:
                for number, found in said.items():
                    if found:
                        window = window_json(first, last) | {"loans": found.loans}
                        kept = {"window": window} | metrics_json(found)
                        keep_figures(connection, number, "month", first // 24, kept)


def _moments(judged_ms: int, now_ms: int) -> Iterator[int]:
    """Yield the end of each day since the last evaluation, then now."""
    ends = range(judged_ms // DAY_MS + 1, -(-now_ms // DAY_MS))
    for day in ends[-_CATCH_UP:]:
        yield day * DAY_MS
    yield now_ms
