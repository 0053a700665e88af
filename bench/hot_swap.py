"""Response times while the champion changes, compared with response times without changes.

python bench/hot_swap.py [--seconds N]

Runs one service with two workers on one core, and the load on another: first with two scorecards at
1,200 requests a second, then with a scorecard and a forest as ONNX at half of the forest's highest
load. Each is measured without changes, and then with four promotions and rollbacks a second. Prints
p50 and p99 of both. The exit code is 1 if a request failed, or was answered by a version that was
not champion at any time from two seconds before the request until its answer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

import load
from peerloan.loan import default_definition
from peerloan.registry import Store
from side import free_port, running

RATE = 1200.0
FOLLOWS_WITHIN = 2.0
_VERSION = b'"version":"'


class Span(NamedTuple):
    """A time in which a version may have been the champion."""

    begin: float
    end: float
    version: str


class Heard(NamedTuple):
    """An answer: the times of the request and of the answer, and the version that answered."""

    asked: float
    came: float
    version: str


class Case(NamedTuple):
    """Two versions to swap, and the rate of requests; None: half of the highest rate."""

    name: str
    versions: tuple[str, str]
    rate: float | None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=13.0, help="for each measurement")
    seconds = parser.parse_args().seconds
    core, *others = sorted(os.sched_getaffinity(0))
    console = Console(width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        settings = {"PEERLOAN_STORE": str(store.root)}
        console.print("training on the built-in sample …")
        first, forest = _train(Path(folder) / "book.csv", settings, store)
        # The same scorecard under another policy is another version.
        second = store.publish_with_policy(first, store.load(first).policy.by_cost(10))
        if others:
            os.sched_setaffinity(0, {others[-1]})
        table = Table("swapped", "swaps", "requests/s")
        for title in ("without swaps: p50 ms", "p99 ms", "with swaps: p50 ms", "p99 ms", "p99 ×"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("failed")
        table.add_column("wrong version")
        cases = (
            Case("two scorecards", (first, second), RATE),
            Case("a scorecard and a forest", (first, forest), None),
        )
        wrong = 0
        for case in cases:
            console.print(f"{case.name} …")
            wrong += _measure(case, store, settings, core, seconds, table)
        console.print(table)
    if wrong:
        raise SystemExit(1)


def _train(book: Path, settings: dict[str, str], store: Store) -> tuple[str, str]:
    """Train a scorecard and a forest, and return their versions."""
    for arguments in (
        ("sample", str(book), "--loans", "30000"),
        ("train", str(book), "--quick", "--candidate", "additive"),
        ("train", str(book), "--quick", "--candidate", "basic"),
    ):
        command = [sys.executable, "-m", "peerloan", *arguments]
        subprocess.run(command, env=os.environ | settings, check=True, capture_output=True)
    by_candidate = {store.manifest(version).candidate: version for version in store.versions()}
    return by_candidate["additive"], by_candidate["basic"]


def _measure(
    case: Case, store: Store, settings: dict[str, str], core: int, seconds: float, table: Table
) -> int:
    """Add a case to the table. Return the number of failed and wrong answers."""
    port = free_port()
    serve = [sys.executable, "-m", "peerloan", "serve", "--workers", "2", "--port", str(port)]
    loan = {field.name: field.default for field in default_definition().fields}
    message = load.post("/v1/predictions", json.dumps(loan).encode())
    # Without swaps, and for the highest rate, the second version serves: the slower one.
    store.promote(case.versions[1])
    with running(serve, settings, core, port):
        load.run(port, message, 1.0)
        rate = case.rate or load.run(port, message, seconds / 2).rate / 2
        rest = load.run(port, message, seconds, rate=rate)
        store.promote(case.versions[0])
        time.sleep(FOLLOWS_WITHIN)
        spans = [Span(time.perf_counter() - FOLLOWS_WITHIN, 0.0, case.versions[0])]
        stop = threading.Event()
        swaps = threading.Thread(target=_swap, args=(store, case.versions[1], spans, stop))
        swaps.start()
        heard: list[Heard] = []
        swapping = load.run(
            port,
            message,
            seconds,
            rate=rate,
            heard=lambda asked, came, answer: heard.append(Heard(asked, came, _by(answer))),
        )
        stop.set()
        swaps.join()
    wrong = sum(not _may_be(each, spans) for each in heard)
    failed = rest.failed + swapping.failed
    rest_99, swapping_99 = (each.percentile(0.99) * 1000 for each in (rest, swapping))
    table.add_row(
        case.name,
        str(len(spans) - 1),
        f"{swapping.rate:,.0f}",
        f"{rest.percentile(0.5) * 1000:.2f}",
        f"{rest_99:.2f}",
        f"{swapping.percentile(0.5) * 1000:.2f}",
        f"{swapping_99:.2f}",
        f"{swapping_99 / rest_99:.1f}",
        str(failed),
        str(wrong),
    )
    return failed + wrong


def _swap(store: Store, second: str, spans: list[Span], stop: threading.Event) -> None:
    """Promote the second version and roll back, in turn. `spans` gets the times as champion."""
    promoted = False
    while not stop.wait(0.25):
        called = time.perf_counter()
        state = store.rollback() if promoted else store.promote(second)
        promoted = not promoted
        # The old version may serve until the call returns, the new one from its beginning on.
        spans[-1] = spans[-1]._replace(end=time.perf_counter())
        spans.append(Span(called, 0.0, str(state.champion)))
    spans[-1] = spans[-1]._replace(end=float("inf"))


def _by(answer: bytes) -> str:
    return answer.partition(_VERSION)[2].partition(b'"')[0].decode()


def _may_be(heard: Heard, spans: list[Span]) -> bool:
    return any(
        span.version == heard.version
        and span.begin <= heard.came
        and span.end >= heard.asked - FOLLOWS_WITHIN
        for span in spans
    )


if __name__ == "__main__":
    main()
