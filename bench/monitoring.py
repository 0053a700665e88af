"""How soon drift is detected, how rare false alarms are, and what monitoring costs.

python bench/monitoring.py [--loans N] [--postgres URL] [--quick]

First it draws windows: false alarms in 20,000 windows without drift of each size, and the share of
1,000 windows of each scenario with an alert. Then it simulates a lender's days in a ledger: 20
windows without drift, then each scenario for ten days. It prints which alerts began and ended when,
and what a webhook received. With --loans it also measures a ledger of that many decisions over two
years: the first pass, and a round an hour later. Without --postgres it starts a temporary
PostgreSQL from Debian's package, if that is installed.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from databases import databases
from false_alarms import Drawn, calm_table, seen_table
from peerloan.book import open_book, open_writer, read_loans
from peerloan.database import Database
from peerloan.loan import Loans, default_definition
from peerloan.monitoring.alerts.delivery import deliver_due
from peerloan.monitoring.config import Channels, MonitoringConfig, Webhook
from peerloan.monitoring.counting.decisions import count_new
from peerloan.monitoring.counting.outcomes import count_outcomes
from peerloan.registry import Bundle, Store
from peerloan.sample_data import SCENARIOS, SCHEMA, batches
from peerloan.stats.arrays import Codes
from peerloan.training import train
from peerloan.worker.monitoring_round import Monitor

# The tests' helper that makes decisions of the past.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.past import DAY_MS, Past, loans_of

SIZES = (50, 100, 200, 1_000)
CALM_WINDOWS, WINDOWS = 20_000, 1_000
PER_DAY = 300
_CALM, _SCENARIO, _AFTER, _TOLD_AFTER = 20, 10, 45, 30
_FIRST_DAY = 20_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loans", type=int, help="also measure a ledger of this many decisions")
    parser.add_argument("--postgres", metavar="URL", help="an empty PostgreSQL database")
    parser.add_argument("--quick", action="store_true", help="a small run, to see whether it works")
    parser.add_argument("--round", nargs=2, metavar=("URL", "STORE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.round:
        _round(*given.round)
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        books = {scenario: _sample(folder, scenario, given.quick) for scenario in SCENARIOS}
        store = Store(folder / "store")
        trained = train(
            open_book(str(_sample(folder, "calm", given.quick, "training", 11))),
            default_definition(),
            *(store, ("additive",)),
            fast=True,
        )
        store.promote(trained[0].version)
        bundle = store.load(trained[0].version)
        console.print(*_drawn(bundle, books, given.quick), sep="\n")
        console.print(*_lived(folder, store, bundle, books, given.quick), sep="\n")
        if given.loans:
            with databases(folder, given.postgres) as ledgers:
                for kind, url in ledgers.items():
                    console.print(_cost(kind, url, folder, books["calm"], given.loans))


def _sample(
    folder: Path, scenario: str, quick: bool, name: str | None = None, seed: int = 12
) -> Path:
    path = folder / f"{name or scenario}.csv"
    with open_writer(path, SCHEMA) as writer:
        for batch in batches(6_000 if quick else 40_000, seed, scenario):
            writer.write(batch)
    return path


def _drawn(bundle: Bundle, books: dict[str, Path], quick: bool) -> Iterator[Table]:
    """Tables of windows drawn from each book.

    Outcomes without drift are drawn by the probabilities; those of a scenario are its own.
    """
    read = {name: _read(path, bundle) for name, path in books.items()}
    calm = Drawn.of(bundle, read.pop("calm")[0])
    scenarios = {name: Drawn.of(bundle, *found) for name, found in read.items()}
    yield calm_table(calm, SIZES, 200 if quick else CALM_WINDOWS)
    yield seen_table(scenarios, SIZES, 20 if quick else WINDOWS)


def _read(book: Path, bundle: Bundle) -> tuple[Loans, Codes]:
    """Return a book's loans, and which were late."""
    rows: list[tuple[Any, ...]] = []
    late: list[int] = []
    for part in open_book(str(book)).parts():
        batch = read_loans(bundle.definition, part, label=True)
        rows += batch.loans.rows()
        late += [] if batch.labels is None else batch.labels.tolist()
    return Loans.of(bundle.definition, rows), np.array(late)


class _Receiver(HTTPServer):
    """A webhook's receiver that stores the events."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.events.append(json.loads(body) | {"signed": self.headers["webhook-signature"]})
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _lived(
    folder: Path, store: Store, bundle: Bundle, books: dict[str, Path], quick: bool
) -> Iterator[Table | str]:
    """Simulate a lender's days, with a round at the end of each and outcomes a month later."""
    receiver = _Receiver()
    (folder / "secret").write_bytes(os.urandom(24).hex().encode())
    address = f"http://127.0.0.1:{receiver.server_port}/drift"
    config = MonitoringConfig(
        tell=Channels(log=False, webhook=Webhook(address, str(folder / "secret")))
    )
    database = Database(f"sqlite:///{folder}/lived/ledger.db")
    database.upgrade()
    past = Past(database, folder / "lived-seal", bundle)
    watcher = Monitor(database, store, config)
    loans = {name: itertools.cycle(list(loans_of(path, bundle))) for name, path in books.items()}
    after = 8 if quick else _AFTER
    scenarios = [(name, _SCENARIO) for name in books if name != "calm"]
    whole = [("calm", _CALM), *(each for own in scenarios for each in (own, ("calm", after)))]
    untold: dict[int, tuple[list[bytes], list[object]]] = {}
    table = Table(
        title=f"{PER_DAY} decisions a day, windows of 7 days, outcomes after {_TOLD_AFTER} days",
        title_justify="left",
    )
    for column in ("day", "loans of", "rule", "level", "of", "", "figure", "limit"):
        table.add_column(
            column, justify="right" if column in ("day", "figure", "limit") else "left"
        )
    day = 0
    for name, count in whole:
        for _ in range(count):
            some = list(itertools.islice(loans[name], PER_DAY))
            own = [loan | {"loan_id": f"{day}-{i}"} for i, (loan, _) in enumerate(some)]
            start = (_FIRST_DAY + day) * DAY_MS
            untold[day] = (
                past.decide(own, start, start + DAY_MS),
                [label for _, label in some],
            )
            if day - _TOLD_AFTER in untold:
                past.report_outcomes(*untold.pop(day - _TOLD_AFTER))
            for _, change in watcher.round(start + DAY_MS).changes:
                alert = change.alert
                figures = ("" if v is None else f"{v:.3f}" for v in (alert.value, alert.limit))
                what = change.type.rsplit(".", 1)[1]
                table.add_row(
                    *(str(day + 1), name, alert.rule, alert.level, alert.about, what, *figures)
                )
            deliver_due(database, config.tell, start + DAY_MS)
            day += 1
    past.close()
    receiver.shutdown()
    yield table
    yield f"the webhook received {len(receiver.events)} events; the first one:"
    yield json.dumps(receiver.events[0], indent=1) if receiver.events else "none"
    ids = {each["id"] for each in receiver.events}
    yield f"different ids: {len(ids)}; by day:"
    for each in receiver.events:
        data = each["data"]
        yield f"{each['time']} {each['type']} {each['subject']} {data['rule']} of {data['about']}"


def _cost(kind: str, url: str, folder: Path, book: Path, loans: int) -> Table:
    """Measure a first pass over many decisions, and a round an hour later, each in a process."""
    store = Store(folder / "store")
    bundle = store.load(str(store.state().champion))
    several = [loan for loan, _ in itertools.islice(loans_of(book, bundle), 5_000)]
    past = Past(Database(url), folder / f"seal-{kind}", bundle)
    end = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    begin = end - 730 * DAY_MS
    parts = range(0, loans, len(several))
    for first in track(parts, f"{kind}: {loans:,} decisions", transient=True):
        own = [loan | {"loan_id": f"{first + i}"} for i, loan in enumerate(several)]
        low, high = (begin + (end - begin) * at // loans for at in (first, first + len(own)))
        past.decide(own, low, high)
    table = Table(title=f"{kind}: {loans:,} decisions", title_justify="left")
    for column in ("run", "counting, s", "rules, s", "MB"):
        table.add_column(column, justify="left" if column == "run" else "right")
    table.add_row("first pass", *_run(folder, url))
    past.decide(several[:600], end - 1_000, end)
    past.close()
    table.add_row("an hour later", *_run(folder, url))
    table.add_row("nothing new", *_run(folder, url))
    return table


def _run(folder: Path, url: str) -> list[str]:
    """Return the seconds and megabytes of a round, without the start of its process."""
    done = subprocess.run(
        [sys.executable, __file__, "--round", url, str(folder / "store")],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _round(url: str, store: str) -> None:
    """Measure a round, and print the result for `_run`."""
    gc.set_threshold(100_000)  # as the command does
    database, versions = Database(url), Store(Path(store))
    began = time.perf_counter()
    count_outcomes(database, versions, count_new(database, versions))
    counted = time.perf_counter()
    Monitor(database, versions, MonitoringConfig()).round(time.time_ns() // 1_000_000)
    judged = time.perf_counter()
    # getrusage would also count the memory of the parent process.
    status = Path("/proc/self/status").read_text("ascii")
    kilobytes = int(status.split("VmHWM:")[1].split()[0])
    print(f"{counted - began:.2f} {judged - counted:.2f} {kilobytes / 1024:.0f}")


if __name__ == "__main__":
    main()
