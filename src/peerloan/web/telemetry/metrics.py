"""The service's Prometheus metrics, summed over all workers.

Workers share metrics through files in a folder. An environment variable must name the folder before
Prometheus's library is imported. So the process that starts the workers must import this module,
which creates the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import multiprocessing
import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from peerloan.ledger.write.group_commit import CommitMetrics
from peerloan.loan import LoanWarning
from peerloan.registry import Decision

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def _create_folder() -> None:
    """Create the folder, and remove it when this process ends."""
    folder, creator = tempfile.mkdtemp(prefix="peerloan-metrics-"), os.getpid()
    os.environ[_FOLDER_VARIABLE] = folder

    @atexit.register
    def remove() -> None:
        if os.getpid() == creator:
            shutil.rmtree(folder, ignore_errors=True)


# A worker uses the folder of its parent process. A program that a server runs is not a worker, even
# though it inherits the variable.
if multiprocessing.parent_process() is None or _FOLDER_VARIABLE not in os.environ:
    _create_folder()

from prometheus_client import (  # noqa: E402
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_PROCESS_ID = re.compile(r"_(\d+)\.db$")

REGISTRY = CollectorRegistry()


class BatchHistogram(Histogram):
    """A histogram that can observe many values at once, which is faster than one at a time."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Observe all values."""
        try:
            total, bounds, buckets = self._sum, self._upper_bounds, self._buckets
        except AttributeError:  # another release of the library lacks these private names
            for value in values:
                self.observe(value)
            return
        total.inc(sum(values))
        counts = Tally(bisect_left(bounds, value) for value in values)
        for bucket, count in counts.items():
            buckets[bucket].inc(count)


REQUESTS = Counter(
    "peerloan_requests",
    "Answered requests, by method, route and status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
SECONDS = BatchHistogram(
    "peerloan_request_seconds",
    "Seconds from a request's arrival in the application to its response, by route.",
    ["route"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
    registry=REGISTRY,
)
DECISIONS = Counter(
    "peerloan_decisions", "Committed decisions, by band.", ["band"], registry=REGISTRY
)
PROBABILITIES = BatchHistogram(
    "peerloan_probability",
    "Probability of late payment of each committed decision.",
    buckets=(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1),
    registry=REGISTRY,
)
UNSEEN_VALUES = Counter(
    "peerloan_unseen_values",
    "Values outside the ranges and levels that were seen in training, by field.",
    ["field"],
    registry=REGISTRY,
)
SERVING = Gauge(
    "peerloan_serving_workers",
    "Workers that serve a version as champion, by version.",
    ["version"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SWAPS = Counter(
    "peerloan_swaps", "Replacements of the champion in running workers.", registry=REGISTRY
)
REFUSED = Counter(
    "peerloan_refused_bundles",
    "Versions that a worker could not load, by alias; each reason counts once.",
    ["alias"],
    registry=REGISTRY,
)
for _alias in ("champion", "challenger"):
    REFUSED.labels(_alias)  # start at 0, so that an alert rule sees the first increase

FOLLOWED = Gauge(
    "peerloan_store_followed_timestamp_seconds",
    "Time at which each worker could last read an alias of the store; the earliest of the workers.",
    ["alias"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
RUNS_GIVEN_UP = Counter(
    "peerloan_model_runs_given_up",
    "ONNX runs that were ended because they took too long, of a request or in shadow.",
    ["of"],
    registry=REGISTRY,
)
for _of in ("request", "shadow"):
    RUNS_GIVEN_UP.labels(_of)

CHALLENGED = Counter(
    "peerloan_challenger_decisions",
    "Decisions that the challenger was to score, by outcome: same or changed (compared with the "
    "champion's), failed (it could not score the loan), or skipped (the queue was full, or the "
    "worker ended).",
    ["outcome"],
    registry=REGISTRY,
)
DIFFERENCES = BatchHistogram(
    "peerloan_challenger_difference",
    "The challenger's probability minus the champion's, for each decision.",
    buckets=(
        *(-0.2, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, 0),
        *(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1),
    ),
    registry=REGISTRY,
)
CHALLENGES_LOST = Counter(
    "peerloan_challenges_lost",
    "Scores of the challenger that could not be stored in the ledger.",
    registry=REGISTRY,
)
LEDGER_DECISIONS = Counter(
    "peerloan_ledger_decisions", "Decisions committed to the ledger.", registry=REGISTRY
)
LEDGER_COMMITS = Histogram(
    "peerloan_ledger_commit_seconds",
    "Seconds that a transaction of the ledger's writer took.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
LEDGER_REFUSED = Counter(
    "peerloan_ledger_unkept",
    "Requests whose decisions were not stored, by reason: unavailable (the ledger), refused (by "
    "the database), in use (another request with this Idempotency-Key is running), another (the "
    "key belongs to another request).",
    ["why"],
    registry=REGISTRY,
)
LEDGER_REPEATED = Counter(
    "peerloan_ledger_repeated",
    "Repeated requests that got the first answer of their Idempotency-Key again.",
    registry=REGISTRY,
)
# Looking up labels takes longer than counting, so the results are cached.
_request_counter = cache(REQUESTS.labels)
_request_seconds = cache(SECONDS.labels)
_decision_counter = cache(DECISIONS.labels)
# Decisions and their warnings that `flush` will count.
_uncounted: deque[tuple[Sequence[Decision], Sequence[Sequence[LoanWarning]]]] = deque()


def count_requests(requests: Iterable[tuple[str, str, str]]) -> None:
    """Count answered requests; each is its method, route and status."""
    for labels, count in Tally(requests).items():
        _request_counter(*labels).inc(count)


def time_requests(requests: Iterable[tuple[str, float]]) -> None:
    """Observe the duration of requests; each is its route and its seconds."""
    by_route: dict[str, list[float]] = {}
    for route, seconds in requests:
        by_route.setdefault(route, []).append(seconds)
    for route, durations in by_route.items():
        _request_seconds(route).observe_all(durations)


def count_decisions(
    decisions: Sequence[Decision], warnings: Sequence[Sequence[LoanWarning]]
) -> None:
    """Queue committed decisions and their warnings, which `flush` counts later."""
    _uncounted.append((decisions, warnings))


def flush() -> None:
    """Count the queued decisions."""
    bands: Tally[str] = Tally()
    unseen: Tally[str | None] = Tally()
    probabilities: list[float] = []
    with contextlib.suppress(IndexError):
        while True:
            decisions, warnings = _uncounted.popleft()
            bands.update([each.band for each in decisions])
            probabilities += [each.probability for each in decisions]
            all_warnings = itertools.chain.from_iterable(warnings)
            unseen.update(each.field for each in all_warnings if each.is_unusual_value)
    for field, count in unseen.items():
        UNSEEN_VALUES.labels(field).inc(count)
    for band, count in bands.items():
        _decision_counter(band).inc(count)
    if probabilities:
        PROBABILITIES.observe_all(probabilities)


def count_commit(commit: CommitMetrics) -> None:
    """Count a transaction of the ledger's writer."""
    LEDGER_DECISIONS.inc(commit.decisions)
    LEDGER_COMMITS.observe(commit.seconds)


def exposition() -> bytes:
    """Return the metrics of all workers in Prometheus's text format.

    Requests of the last moment may be missing, because they are counted in batches.
    """
    flush()
    for path in Path(os.environ[_FOLDER_VARIABLE]).glob("gauge_live*.db"):
        process = _PROCESS_ID.search(path.name)
        if process and not Path(f"/proc/{process[1]}").exists():
            with contextlib.suppress(FileNotFoundError):  # another worker may have removed it
                multiprocess.mark_process_dead(int(process[1]))  # type: ignore[no-untyped-call]
    combined = CollectorRegistry()
    multiprocess.MultiProcessCollector(combined)  # type: ignore[no-untyped-call]
    return generate_latest(combined)
