"""Windows of the ledger: figures of a version over some hours or days, from hourly counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from peerloan.monitoring.alerts.rules import Rules
from peerloan.monitoring.counting.counts import Counts, Outcomes, add_outcomes
from peerloan.monitoring.counting.early_outcomes import subtract_outcomes
from peerloan.monitoring.counting.storage import Hour, KnownOutcomes, read_counts
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.monitoring.window_metrics import ChallengerMetrics, WindowMetrics, window_metrics


class Window(NamedTuple):
    """A range of hours since 1970 (`last` excluded), of some sources or, if None, of all."""

    first: int
    last: int
    sources: Collection[str] | None = None


def read_window(
    connection: Connection, versions: VersionCache, window: Window, early: Mapping[Hour, Counts]
) -> dict[int, Counts]:
    """Sum a window's counts by version number, without early outcomes.

    Versions that can't be loaded are left out.
    """
    totals: dict[int, Counts] = {}
    for hour, counts in read_counts(connection, *window):
        if hour.version in totals:
            totals[hour.version].add(counts)
        elif versions.load(hour.version) is not None:
            totals[hour.version] = counts
    for hour, counts in early.items():
        is_in_window = window.first <= hour.hour < window.last and (
            window.sources is None or hour.source in window.sources
        )
        total = totals.get(hour.version)
        if total is not None and is_in_window:
            subtract_outcomes(total.outcomes, counts.outcomes)
            for number, outcomes in counts.challengers.items():
                subtract_outcomes(total.challengers.setdefault(number, {}), outcomes)
    return totals


def window_figures(
    versions: VersionCache,
    number: int,
    counts: Counts,
    limits: Rules,
    outcomes: Outcomes | None = None,
) -> WindowMetrics | None:
    """Compute the figures of a version's window. None without loans, or without the version.

    `outcomes`, if given, is used instead of the window's own outcomes; it may cover a longer
    period.
    """
    loaded = versions.load(number)
    scores = None if loaded is None else loaded.counting.scores(counts.cells)
    if loaded is None or scores is None:
        return None
    bundle, counting, _ = loaded
    outcome_scores = counting.scores(counts.outcomes if outcomes is None else outcomes)
    metrics = window_metrics(bundle, counting, limits, counts, scores, outcome_scores)
    return replace(metrics, challengers=_challengers(versions, counts))


def _challengers(versions: VersionCache, counts: Counts) -> list[ChallengerMetrics]:
    challengers = []
    for number, outcomes in counts.challengers.items():
        loaded = versions.load(number)
        scores = None if loaded is None else loaded.counting.scores(outcomes)
        if loaded is not None and scores is not None:
            bundle = loaded.bundle
            challengers.append(ChallengerMetrics(bundle.version, scores.realised(bundle.policy)))
    return challengers


class History:
    """Numbers of loans and known outcomes by version and day, and of loans by hour.

    Early outcomes are left out.
    """

    def __init__(
        self, hours: Iterable[tuple[Hour, KnownOutcomes]], early: Mapping[Hour, Counts]
    ) -> None:
        self._days: dict[int, dict[int, tuple[int, Outcomes]]] = {}
        self._loans: Counter[int] = Counter()
        for hour, known in hours:
            days = self._days.setdefault(hour.version, {})
            loans, outcomes = days.get(hour.hour // 24, (0, {}))
            add_outcomes(outcomes, known.outcomes)
            days[hour.hour // 24] = loans + known.loans, outcomes
            self._loans[hour.hour] += known.loans
        for hour, counts in early.items():
            day = self._days.get(hour.version, {}).get(hour.hour // 24)
            if day is not None:
                subtract_outcomes(day[1], counts.outcomes)

    def mature(self, version: int, before: int, share: float, at_most: int) -> Outcomes:
        """Sum the outcomes of a version's newest mature days before the day `before`.

        A day is mature if at least this share of its outcomes is known. With fewer, the figures may
        be biased, because late loans may be reported first. At most `at_most` days are used.
        """
        total: Outcomes = {}
        taken = 0
        days = self._days.get(version, {})
        for day in sorted((day for day in days if day < before), reverse=True):
            loans, outcomes = days[day]
            if sum(known for known, _ in outcomes.values()) >= max(1, share * loans):
                add_outcomes(total, outcomes)
                taken += 1
                if taken == at_most:
                    break
        return total

    def volumes(self, last: int, hours: int, windows: int) -> list[int]:
        """Return the numbers of loans in the windows before the hour `last`, the newest first.

        Each window has this many hours. Windows before the first known hour are left out.
        """
        first = min(self._loans, default=last)
        starts = (last - (i + 1) * hours for i in range(windows))
        return [
            sum(self._loans[hour] for hour in range(start, start + hours))
            for start in starts
            if start >= first
        ]


def window_json(first: int, last: int) -> dict[str, Any]:
    """Format the start and end of a window (hours since 1970) as they are in JSON."""
    ends = (datetime.fromtimestamp(hour * 3600, UTC) for hour in (first, last))
    since, until = (f"{end:%Y-%m-%dT%H:00Z}" for end in ends)
    return {"since": since, "until": until}
