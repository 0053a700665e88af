"""Run independent jobs on all cores, one thread for each job.

Fitting releases Python's lock, so the threads run in parallel. More threads inside a fit would only
wait for one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_limits

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def parallel_map(call: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Iterator[_Result]:
    """Yield the results in the order of the jobs. The first exception cancels the other jobs."""
    # The limit of OpenMP applies to one thread, that of linear algebra to the process.
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(cpu_count(), initializer=_prepare) as threads,
    ):
        try:
            yield from threads.map(call, jobs)
        finally:
            threads.shutdown(cancel_futures=True)


def _prepare() -> None:
    threadpool_limits(1)
    # Some libraries sum a column to check for missing values; sums of large doubles overflow.
    np.seterr(over="ignore", invalid="ignore")
