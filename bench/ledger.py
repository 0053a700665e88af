"""What the ledger costs: the service without it, with SQLite and with PostgreSQL.

python bench/ledger.py [--seconds N] [--postgres URL] [--loans N]

Measures each three times in turn: one worker pinned to one core, the load (32 connections) and
PostgreSQL on another. Prints medians of requests/s, of response times, and of response times at
half of the highest rate, and ratios to the service without a ledger in the same round. It also
measures requests with an Idempotency-Key each, and Gunicorn. With --loans it then generates that
many decisions in each database, and times the queries of the API. Without --postgres it starts a
temporary PostgreSQL from Debian's package, if that is installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import load
import questions
from databases import POSTGRESQL, SQLITE, databases
from peerloan.cli.commands.bootstrap import train_on_sample
from peerloan.loan import default_definition
from peerloan.registry import Store
from side import Failed, Side, check, free_port, running

HERE = Path(__file__).parent
ROUNDS = 3
OFF = "off"
_GRANIAN = {
    OFF: [sys.executable, str(HERE / "unkept.py"), "{port}"],
    "on": [sys.executable, "-m", "peerloan", "serve", "--workers", "1", "--port", "{port}"],
}
_GUNICORN = [
    *(sys.executable, "-m", "gunicorn", "-c", "python:peerloan.service.gunicorn_conf"),
    *("-w", "1", "-b", "127.0.0.1:{port}", "--pythonpath", str(HERE)),
]
LOAN = {field.name: field.default for field in default_definition().fields}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """One way to run the service: its server, whether requests carry keys, and its ledger."""

    server: str
    keyed: bool
    ledger: str

    def __str__(self) -> str:
        return f"{self.server}{', keys' if self.keyed else ''}: {self.ledger}"

    def side(self, root: Path, url: str) -> Side:
        """Return the service to start."""
        on = "off" if self.ledger == OFF else "on"
        command = _GRANIAN[on]
        if self.server == "Gunicorn":
            module = "unkept" if on == "off" else "peerloan.service.wsgi"
            command = [*_GUNICORN, f"{module}:application()"]
        settings = {
            "PEERLOAN_STORE": str(root / "store"),
            "PEERLOAN_TOKENS": str(root / "tokens"),
            "PEERLOAN_LEDGER": url,
        }
        return Side(str(self), command, settings, LOAN, lambda answer: "probability" in answer)


@dataclass(frozen=True)
class Measured:
    """The results of a load at the highest rate, and at half of it."""

    full: load.Load
    half: load.Load


Round = dict[Way, Measured]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    parser.add_argument("--postgres", metavar="URL", help="an empty PostgreSQL database")
    parser.add_argument("--loans", type=int, default=0, help="number of decisions to query")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)  # a pipe has no width
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # A thread that draws the bar would slow down the load.
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
    core, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(0, {others[-1]})  # PostgreSQL's processes inherit it
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder), given.postgres) as urls:
        root = Path(folder)
        if POSTGRESQL not in urls:
            console.print("PostgreSQL is left out: it is not installed, and --postgres is not set")
        ways = [
            Way(server, keyed, ledger)
            for server, keyed in (("Granian", False), ("Granian", True), ("Gunicorn", False))
            for ledger in (OFF, *urls)
        ]
        with bar:
            task = bar.add_task("", total=1 + ROUNDS * len(ways))

            def tell(what: str) -> None:
                bar.update(task, description=what, advance=1, refresh=True)

            tell("training on the built-in sample")
            store = Store(root / "store")
            store.promote(train_on_sample(root / "sample.csv", store)[0].version)
            failed: dict[Way, str] = {}
            rounds = list(_rounds(ways, root, urls, core, given.seconds, tell, failed))
        console.print(_table(ways, rounds, failed))
        if given.loans:
            if others:
                os.sched_setaffinity(0, {core, *others})
            for name in urls:
                console.print(questions.table(name, urls[name], store, root, given.loans, console))
    if failed:
        raise SystemExit("\n".join(f"{way}: {why}" for way, why in failed.items()))


def _rounds(
    ways: list[Way],
    root: Path,
    urls: dict[str, str],
    core: int,
    seconds: float,
    tell: Tell,
    failed: dict[Way, str],
) -> Iterator[Round]:
    """Measure each way once a round. If one fails, add the reason to `failed` and skip it."""
    for number in range(ROUNDS):
        found: Round = {}
        for way in ways:
            if way not in failed:
                tell(f"round {number + 1} of {ROUNDS}: {way}")
                side = way.side(root, urls.get(way.ledger, urls[SQLITE]))
                try:
                    found[way] = _measure(side, core, seconds, way.keyed)
                except Failed as why:
                    failed[way] = str(why)
        yield found


def _measure(side: Side, core: int, seconds: float, keyed: bool) -> Measured:
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in side.command]
    body = json.dumps(side.body).encode()
    message = _keyed(side, body) if keyed else load.post(side.path, body)
    with running(command, side.settings, core, port, side.ready):
        check(side, port, body)
        try:
            load.run(port, message, 1.0)  # warm
            full = load.run(port, message, seconds)
            half = load.run(port, message, seconds, rate=full.rate / 2)
        except (OSError, ValueError) as error:
            raise Failed(f"under load: {error}") from None
    if not full.answered or not half.answered:
        raise Failed("gave no answer under load")
    return Measured(full, half)


def _keyed(side: Side, body: bytes) -> Callable[[], bytes]:
    """Return a function that makes a request with a new key."""
    mark = "0" * 16
    run = secrets.token_hex(8)
    head, tail = load.post(side.path, body, {"Idempotency-Key": f"{run}-{mark}"}).split(
        mark.encode(), 1
    )
    numbers = itertools.count(1)
    return lambda: b"%s%016d%s" % (head, next(numbers), tail)


def _table(ways: list[Way], rounds: list[Round], failed: dict[Way, str]) -> Table:
    """Medians over the rounds. Ratios are of the same round, because machines vary over time."""
    table = Table("the ledger")
    for title in (
        *("requests/s", "of off", "p50 ms", "p99 ms", "p99 ms at half load", "p99 − off"),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("failed")
    for way in ways:
        if way in failed:
            table.add_row(str(way), *["–"] * 6, escape(failed[way]))
            continue
        off = Way(way.server, way.keyed, OFF)
        pairs = [(found[way], found[off]) for found in rounds if off in found]
        seen = [found[way] for found in rounds]
        table.add_row(
            str(way),
            f"{median(each.full.rate for each in seen):,.0f}",
            f"{median(ours.full.rate / none.full.rate for ours, none in pairs):.0%}",
            f"{_ms(each.full.percentile(0.5) for each in seen):.1f}",
            f"{_ms(each.full.percentile(0.99) for each in seen):.1f}",
            f"{_ms(each.half.percentile(0.99) for each in seen):.1f}",
            f"{_ms(o.half.percentile(0.99) - n.half.percentile(0.99) for o, n in pairs):+.1f}",
            str(sum(each.full.failed + each.half.failed for each in seen)),
        )
    return table


def _ms(seconds: Iterable[float]) -> float:
    return median(seconds) * 1000


if __name__ == "__main__":
    main()
