"""The service's Prometheus metrics, summed over all workers.

Workers share metrics through files, in a folder that an environment variable must name before
Prometheus's library is imported. The process that starts the workers imports this module and
creates the folder.
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

from peerloan.ledger.write.group_commit import Committed
from peerloan.loan import LoanWarning
from peerloan.registry import Decision

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def _share() -> None:
    folder, maker = tempfile.mkdtemp(prefix="peerloan-metrics-"), os.getpid()
    os.environ[_FOLDER] = folder

    @atexit.register
    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder, ignore_errors=True)


# A worker uses its server's folder. A program that a server starts is not a worker.
if multiprocessing.parent_process() is None or _FOLDER not in os.environ:
    _share()

from prometheus_client import (  # noqa: E402
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_PROCESS = re.compile(r"_(\d+)\.db$")

REGISTRY = CollectorRegistry()


class _Histogram(Histogram):
    """A histogram that observes many values at once; the library's observes one at a time."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Observe each of the values."""
        try:
            total, bounds, buckets = self._sum, self._upper_bounds, self._buckets
        except AttributeError:  # another release without these private names
            for value in values:
                self.observe(value)
            return
        total.inc(sum(values))
        found = Tally(bisect_left(bounds, value) for value in values)
        for bucket, count in found.items():
            buckets[bucket].inc(count)


REQUESTS = Counter(
    "peerloan_requests",
    "Requests that were answered.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
SECONDS = _Histogram(
    "peerloan_request_seconds",
    "From a request's arrival in the application to its answer.",
    ["route"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
    registry=REGISTRY,
)
DECISIONS = Counter("peerloan_decisions", "Decisions by band.", ["band"], registry=REGISTRY)
PROBABILITIES = _Histogram(
    "peerloan_probability",
    "Probabilities of late payment that were answered.",
    buckets=(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1),
    registry=REGISTRY,
)
UNUSUAL = Counter(
    "peerloan_unseen_values",
    "Values outside of what training saw, by field.",
    ["field"],
    registry=REGISTRY,
)
SERVING = Gauge(
    "peerloan_serving_workers",
    "Workers that serve a version.",
    ["version"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SWAPS = Counter(
    "peerloan_swaps", "Champions that a worker took up while it served.", registry=REGISTRY
)
REFUSED = Counter(
    "peerloan_refused_bundles",
    "Versions that a worker refused: as champion, or as challenger.",
    ["alias"],
    registry=REGISTRY,
)
for _alias in ("champion", "challenger"):
    REFUSED.labels(_alias)  # starts at 0, so that an alert sees the first increase

FOLLOWED = Gauge(
    "peerloan_store_followed_timestamp_seconds",
    "When the worker that is furthest behind could last read what the store names, by alias.",
    ["alias"],
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
RUNS_GIVEN_UP = Counter(
    "peerloan_model_runs_given_up",
    "ONNX runs that were ended because they took too long: of a request, or in shadow.",
    ["of"],
    registry=REGISTRY,
)
for _of in ("request", "shadow"):
    RUNS_GIVEN_UP.labels(_of)

CHALLENGED = Counter(
    "peerloan_challenger_decisions",
    "Decisions that the challenger made in shadow: the same as the champion's, changed, failed "
    "(it can't score the loan), or skipped (too many waited, or too long for a worker that ended).",
    ["outcome"],
    registry=REGISTRY,
)
DIFFERENCES = _Histogram(
    "peerloan_challenger_difference",
    "The challenger's probability less the champion's.",
    buckets=(
        *(-0.2, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, 0),
        *(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1),
    ),
    registry=REGISTRY,
)
CHALLENGES_LOST = Counter(
    "peerloan_challenges_lost",
    "Decisions by the challenger that could not be written to the ledger.",
    registry=REGISTRY,
)
LEDGER_DECISIONS = Counter(
    "peerloan_ledger_decisions", "Decisions that were committed to the ledger.", registry=REGISTRY
)
LEDGER_COMMITS = Histogram(
    "peerloan_ledger_commit_seconds",
    "How long a transaction of the ledger's writer took.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
LEDGER_REFUSED = Counter(
    "peerloan_ledger_unkept",
    "Requests that were not answered because their decisions were not kept, by why: unavailable, "
    "refused, in use (their key), another (request with their key).",
    ["why"],
    registry=REGISTRY,
)
LEDGER_REPEATED = Counter(
    "peerloan_ledger_repeated",
    "Requests that got the first answer of their Idempotency-Key again.",
    registry=REGISTRY,
)
# Label look-ups cost more than counting, so they are cached.
_request_counter = cache(REQUESTS.labels)
_request_seconds = cache(SECONDS.labels)
_decision_counter = cache(DECISIONS.labels)
# Decisions with their warnings that are not counted yet.
_decisions: deque[tuple[Sequence[Decision], Sequence[Sequence[LoanWarning]]]] = deque()


def count_requests(answered: Iterable[tuple[str, str, str]]) -> None:
    """Count answered requests by method, route and status."""
    for labels, count in Tally(answered).items():
        _request_counter(*labels).inc(count)


def time_requests(answered: Iterable[tuple[str, float]]) -> None:
    """Observe the seconds that requests took, by route."""
    by_route: dict[str, list[float]] = {}
    for route, seconds in answered:
        by_route.setdefault(route, []).append(seconds)
    for route, taken in by_route.items():
        _request_seconds(route).observe_all(taken)


def count_decisions(
    decisions: Sequence[Decision], warnings: Sequence[Sequence[LoanWarning]]
) -> None:
    """Queue decisions and their warnings for `flush`. A `what_if` is not counted."""
    _decisions.append((decisions, warnings))


def flush() -> None:
    """Count the queued decisions."""
    bands: Tally[str] = Tally()
    unusual: Tally[str | None] = Tally()
    probabilities: list[float] = []
    with contextlib.suppress(IndexError):
        while True:
            decisions, warnings = _decisions.popleft()
            bands.update([each.band for each in decisions])
            probabilities += [each.probability for each in decisions]
            every_warning = itertools.chain.from_iterable(warnings)
            unusual.update(each.field for each in every_warning if each.is_unusual_value)
    for field, count in unusual.items():
        UNUSUAL.labels(field).inc(count)
    for band, count in bands.items():
        _decision_counter(band).inc(count)
    if probabilities:
        PROBABILITIES.observe_all(probabilities)


def count_commit(done: Committed) -> None:
    """Count a transaction of the ledger's writer."""
    LEDGER_DECISIONS.inc(done.decisions)
    LEDGER_COMMITS.observe(done.seconds)


def exposition() -> bytes:
    """Return all metrics in Prometheus's text format; the newest may be missing for a moment."""
    flush()
    for path in Path(os.environ[_FOLDER]).glob("gauge_live*.db"):
        process = _PROCESS.search(path.name)
        if process and not Path(f"/proc/{process[1]}").exists():
            with contextlib.suppress(FileNotFoundError):  # another worker may have removed it
                multiprocess.mark_process_dead(int(process[1]))  # type: ignore[no-untyped-call]
    whole = CollectorRegistry()
    multiprocess.MultiProcessCollector(whole)  # type: ignore[no-untyped-call]
    return generate_latest(whole)
