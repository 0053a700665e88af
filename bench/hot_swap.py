"""Waits while versions are swapped, beside waits at rest.

python bench/hot_swap.py [--seconds N]

One service with two workers on one core, the load on another at 1,200 requests a second; then the
same while a promotion and a rollback follow one another four times a second. Prints p50 and p99 of
both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from rich.console import Console

import load
from peerloan.loan import default_definition
from peerloan.model import Store
from side import free_port, running

RATE = 1200.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=13.0, help="for each of the two")
    seconds = parser.parse_args().seconds
    cores = sorted(os.sched_getaffinity(0))
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        settings = {"PEERLOAN_STORE": str(store.root)}
        bootstrap = [sys.executable, "-m", "peerloan", "bootstrap"]
        subprocess.run(bootstrap, env=os.environ | settings, check=True, capture_output=True)
        first = str(store.state().champion)
        second = store.revise(first, store.load(first).policy.by_cost(10), {})
        port = free_port()
        serve = [sys.executable, "-m", "peerloan", "serve", "--workers", "2", "--port", str(port)]
        loan = {field.name: field.default for field in default_definition().fields}
        message = load.post("/v1/predictions", json.dumps(loan).encode())
        os.sched_setaffinity(0, {cores[-1]})
        with running(serve, settings, cores[0], port):
            load.run(port, message, 1.0)
            rest = load.run(port, message, seconds, rate=RATE)
            stop = threading.Event()
            swaps = threading.Thread(target=_swap, args=(store, second, stop))
            swaps.start()
            swapping = load.run(port, message, seconds, rate=RATE)
            stop.set()
            swaps.join()
        for name, found in (("at rest", rest), ("while swapping", swapping)):
            p50, p99 = (found.percentile(share) * 1000 for share in (0.5, 0.99))
            console.print(
                f"{name}: {found.rate:,.0f} requests/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
                f"failed {found.failed}"
            )
        ratio = swapping.percentile(0.99) / rest.percentile(0.99)
        console.print(f"{store.state().number - 1} swaps; p99 × {ratio:.1f}")


def _swap(store: Store, second: str, stop: threading.Event) -> None:
    while not stop.wait(0.25):
        store.promote(second)
        stop.wait(0.25)
        store.rollback()


if __name__ == "__main__":
    main()
