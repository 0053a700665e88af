"""Throughput of one worker on one core, beside an empty Flask view in the same run.

python bench/serving.py [--seconds N]

Trains both candidates on the built-in sample, then three times for each server in turn: one worker
pinned to one core, the load on another, keep-alive connections. Prints the medians of requests/s,
waits and the worker's memory, and of the ratio to the empty view in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

import load
from peerloan.book import open_book, open_writer
from peerloan.loan import default_definition
from peerloan.model import Store
from peerloan.sample import SCHEMA, batches
from peerloan.training import train

LOANS = 30_000
ROUNDS = 3
EMPTY = "empty Flask view"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="for each measurement (nine of them)"
    )
    seconds = parser.parse_args().seconds
    cores = sorted(os.sched_getaffinity(0))
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = Store(root / "store")
        with open_writer(root / "book.csv", SCHEMA) as writer:
            for batch in batches(LOANS):
                writer.write(batch)
        console.print(f"training on {LOANS:,} synthetic loans …")
        versions = {
            outcome.candidate: outcome.version
            for outcome in train(
                open_book(root / "book.csv"),
                default_definition(),
                store,
                ("additive", "basic"),
                fast=True,
            )
        }
        loan = {field.name: field.default for field in default_definition().fields}
        body = json.dumps(loan).encode()
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[1]})
        serve = [sys.executable, "-m", "peerloan", "serve", "--workers", "1", "--port"]
        empty = [sys.executable, str(Path(__file__).with_name("empty.py"))]
        rounds: list[dict[str, tuple[load.Load, float]]] = []
        for number in range(ROUNDS):
            console.print(f"round {number + 1} of {ROUNDS} …")
            found = {EMPTY: _measure(empty, {}, cores[0], body, seconds)}
            for candidate, version in versions.items():
                if store.state().champion != version:
                    store.promote(version)
                settings = {"PEERLOAN_STORE": str(store.root)}
                found[candidate] = _measure(serve, settings, cores[0], body, seconds)
            rounds.append(found)
        console.print(_table(rounds))


def _table(rounds: list[dict[str, tuple[load.Load, float]]]) -> Table:
    """Medians over the rounds; the ratio is that of each round, because machines drift."""
    table = Table("server", "requests/s", "of empty", "p50 ms", "p99 ms", "failed", "MB a worker")
    for name in rounds[0]:
        loads = [found[name][0] for found in rounds]
        ratios = [found[name][0].rate / found[EMPTY][0].rate for found in rounds]
        table.add_row(
            name,
            f"{median(each.rate for each in loads):,.0f}",
            f"{median(ratios):.0%}",
            f"{median(each.percentile(0.5) for each in loads) * 1000:.2f}",
            f"{median(each.percentile(0.99) for each in loads) * 1000:.2f}",
            str(sum(each.failed for each in loads)),
            f"{median(found[name][1] for found in rounds):.0f}",
        )
    return table


def _measure(
    command: list[str], settings: dict[str, str], core: int, body: bytes, seconds: float
) -> tuple[load.Load, float]:
    port = free_port()
    with running([*command, str(port)], settings, core, port) as process:
        message = load.post("/v1/predictions", body)
        load.run(port, message, seconds=1.0)  # warm
        return load.run(port, message, seconds), _worker_memory(process.pid)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running(
    command: list[str], settings: dict[str, str], core: int, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A server on one core, once it is ready."""
    process = subprocess.Popen(
        command,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait()


def _worker_memory(master: int) -> float:
    """Resident megabytes of the master's one worker."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    status = Path(f"/proc/{children[0]}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


if __name__ == "__main__":
    main()
