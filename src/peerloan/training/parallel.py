"""Running independent jobs on every core.

In threads, each job on one: what fits models releases Python's lock, and threads inside of each fit
would only wait for one another.
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
    """The results in the jobs' order, as they come; the first failure ends the rest."""
    # The limit of OpenMP is a thread's own, that of linear algebra the process's.
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
    # Sums of the largest doubles overflow in libraries that only look for missing values.
    np.seterr(over="ignore", invalid="ignore")
