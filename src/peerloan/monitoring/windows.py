"""Windows of the ledger: figures of a version over some days, from the hourly counts."""

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
    """Hours since 1970, from the first to before the last; of some sources, or of all."""

    first: int
    last: int
    sources: Collection[str] | None = None


def read_window(
    connection: Connection, versions: VersionCache, window: Window, early: Mapping[Hour, Counts]
) -> dict[int, Counts]:
    """Sum a window's counts by version number, without early outcomes.

    Versions that can't be loaded are left out.
    """
    found: dict[int, Counts] = {}
    for hour, counts in read_counts(connection, *window):
        if hour.version in found:
            found[hour.version].add(counts)
        elif versions.load(hour.version) is not None:
            found[hour.version] = counts
    for hour, counts in early.items():
        of_source = window.sources is None or hour.source in window.sources
        own = found.get(hour.version)
        if own is not None and of_source and window.first <= hour.hour < window.last:
            subtract_outcomes(own.outcomes, counts.outcomes)
            for number, theirs in counts.challengers.items():
                subtract_outcomes(own.challengers.setdefault(number, {}), theirs)
    return found


def window_figures(
    versions: VersionCache,
    number: int,
    counts: Counts,
    limits: Rules,
    outcomes: Outcomes | None = None,
) -> WindowMetrics | None:
    """Compute the figures of a version's window; None without loans.

    `outcomes` may be those of another window.
    """
    opened = versions.load(number)
    scores = None if opened is None else opened.counting.scores(counts.cells)
    if opened is None or scores is None:
        return None
    bundle, counting, _ = opened
    known = counting.scores(counts.outcomes if outcomes is None else outcomes)
    found = window_metrics(bundle, counting, limits, counts, scores, known)
    return replace(found, challengers=_challengers(versions, counts))


def _challengers(versions: VersionCache, counts: Counts) -> list[ChallengerMetrics]:
    found = []
    for number, outcomes in counts.challengers.items():
        opened = versions.load(number)
        scores = None if opened is None else opened.counting.scores(outcomes)
        if opened is not None and scores is not None:
            bundle = opened.bundle
            found.append(ChallengerMetrics(bundle.version, scores.realised(bundle.policy)))
    return found


class History:
    """Loans and known outcomes of each day by version, and loans of each hour.

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
        """Return the outcomes of a version's newest mature days before a day, at most so many days.

        A day is mature if at least this share of its outcomes is known: with fewer, late loans may
        be reported first and bias the figures.
        """
        found: Outcomes = {}
        taken = 0
        days = self._days.get(version, {})
        for day in sorted((day for day in days if day < before), reverse=True):
            loans, outcomes = days[day]
            if sum(known for known, _ in outcomes.values()) >= max(1, share * loans):
                add_outcomes(found, outcomes)
                taken += 1
                if taken == at_most:
                    break
        return found

    def volumes(self, last: int, hours: int, windows: int) -> list[int]:
        """Return the loans in each of the preceding windows of so many hours that have data."""
        first = min(self._loans, default=last)
        starts = (last - (i + 1) * hours for i in range(windows))
        return [
            sum(self._loans[hour] for hour in range(start, start + hours))
            for start in starts
            if start >= first
        ]


def window_json(first: int, last: int) -> dict[str, Any]:
    """Describe the hours of a window for people."""
    ends = (datetime.fromtimestamp(hour * 3600, UTC) for hour in (first, last))
    since, until = (f"{end:%Y-%m-%dT%H:00Z}" for end in ends)
    return {"since": since, "until": until}
