"""Compare the throughput of one worker on one core with other servers, in the same run.

python bench/serving.py [--seconds N] [--peers [NAME …]]

Measures our service with a scorecard, with the same scorecard and the ledger off, and with a
forest; an empty Flask view; and with --peers other ways to serve a model (bench/peers/). Trains on
the built-in sample, then measures each server three times in turn: one worker pinned to one core,
the load on another, on 32 connections that stay open. Prints medians of requests/s, response times
and memory, and of the scorecard's ratios to each server in the same round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import peers
from side import Failed, Measured, Side, measure

HERE = Path(__file__).parent
DEFINITION = HERE.parent / "src/peerloan/loan/default.toml"
LOANS = 30_000
ROUNDS = 3
OURS = "PeerLoan Risk, scorecard"
UNKEPT = "PeerLoan Risk, scorecard, ledger off"
FOREST = "PeerLoan Risk, forest"
CANDIDATES = {OURS: "additive", FOREST: "basic"}
EMPTY = "empty Flask view"

Tell = Callable[[str], None]
Round = dict[str, Measured]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    every = ", ".join(peers.PEERS)
    parser.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help=f"also measure all peers ({every}), or only these",
    )
    given = parser.parse_args()
    names = list(peers.PEERS) if given.peers == [] else given.peers or []
    if unknown := set(names).difference(peers.PEERS):
        parser.error(f"--peers: unknown {', '.join(unknown)}; expected one of {every}")
    console = Console(width=None if sys.stdout.isatty() else 160)  # a pipe has no width
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # A thread that draws the bar would slow down the load.
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
    with tempfile.TemporaryDirectory() as folder, bar:
        servers = 2 + len(CANDIDATES) + len(names)
        task = bar.add_task("", total=servers * (1 + ROUNDS) + bool(names))

        def tell(what: str) -> None:
            bar.update(task, description=what, advance=1, refresh=True)

        root, loan = Path(folder), _loan()
        book = root / "book.csv"
        tell(f"{LOANS:,} synthetic loans")
        _peerloan({}, "sample", str(book), "--loans", str(LOANS))
        failed: dict[str, str] = {}
        sides = list(_ours(root, book, loan, tell))
        if names:
            tell("training: the pipeline that the peers serve")
            model = peers.train(book, loan, root / "pipeline.joblib")
            sides += _peers(names, model, tell, failed)
        rounds = list(_rounds(sides, given.seconds, tell, failed))
    for name in (EMPTY, UNKEPT, *CANDIDATES):
        if name in failed:
            raise SystemExit(f"{name} {failed[name]}")
    console.print(_table(rounds, failed))


def _loan() -> dict[str, object]:
    with DEFINITION.open("rb") as file:
        return {field["name"]: field["default"] for field in tomllib.load(file)["field"]}


def _peerloan(settings: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "peerloan", *arguments]
    environment = os.environ | settings
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _ours(root: Path, book: Path, loan: object, tell: Tell) -> Iterator[Side]:
    """Yield the empty view, the service for each candidate, and one with its ledger off."""
    empty = [sys.executable, str(HERE / "empty.py"), "{port}"]
    yield Side(EMPTY, empty, {}, loan, lambda answer: answer == {})
    serve = [sys.executable, "-m", "peerloan", "serve", "--workers", "1", "--port", "{port}"]
    for name, candidate in CANDIDATES.items():
        tell(f"training: {name}")
        folders = {"PEERLOAN_STORE": root / candidate, "PEERLOAN_TOKENS": root / "tokens"}
        settings = {key: str(folder) for key, folder in folders.items()}
        _peerloan(settings, "train", str(book), "--quick", "--candidate", candidate, "--promote")
        head = {"Authorization": f"Bearer {_peerloan(settings, 'token', 'new', candidate)}"}
        yield Side(name, serve, settings, loan, _is_prediction, headers=head)
        if name == OURS:
            unkept = [sys.executable, str(HERE / "unkept.py"), "{port}"]
            yield Side(UNKEPT, unkept, settings, loan, _is_prediction, headers=head)


def _is_prediction(answer: Any) -> bool:
    return "probability" in answer


def _peers(
    names: list[str], model: peers.Model, tell: Tell, failed: dict[str, str]
) -> Iterator[Side]:
    """Yield the peers that can be installed. Add the reason for the others to `failed`."""
    for name in names:
        peer = peers.PEERS[name]
        tell(f"environment: {peer.title}")
        try:
            yield peers.side(name, model)
        except Failed as why:
            failed[peer.title] = str(why)


def _rounds(
    sides: list[Side], seconds: float, tell: Tell, failed: dict[str, str]
) -> Iterator[Round]:
    """Measure each side once a round. If one fails, add the reason to `failed` and skip it."""
    core, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(0, {others[-1]})
    for number in range(ROUNDS):
        found: Round = {}
        for side in sides:
            if side.name not in failed:
                tell(f"round {number + 1} of {ROUNDS}: {side.name}")
                try:
                    found[side.name] = measure(side, core, seconds)
                except Failed as why:
                    failed[side.name] = str(why)
        yield found


def _table(rounds: list[Round], failed: dict[str, str]) -> Table:
    """Medians over the rounds. Ratios are of the same round, because machines vary over time."""
    table = Table("server")
    for title in (
        *("requests/s", "ours ÷ theirs", "ledger off ÷ theirs", "p50 ms", "p99 ms"),
        *("MB", "our MB ÷ theirs"),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("failed", overflow="fold")
    for name in rounds[-1]:
        theirs = [found[name] for found in rounds]
        pairs = [(found[OURS], found[name]) for found in rounds]
        table.add_row(
            name,
            f"{median(each.load.rate for each in theirs):,.0f}",
            f"{_ratio(rounds, OURS, name):.2f}",
            f"{_ratio(rounds, UNKEPT, name):.2f}",
            f"{median(each.load.percentile(0.5) for each in theirs) * 1000:.2f}",
            f"{median(each.load.percentile(0.99) for each in theirs) * 1000:.2f}",
            f"{median(each.megabytes for each in theirs):.0f}",
            f"{median(our.megabytes / their.megabytes for our, their in pairs):.0%}",
            str(sum(each.load.failed for each in theirs)),
        )
    for name, why in failed.items():
        table.add_row(name, *["–"] * 7, escape(why))
    return table


def _ratio(rounds: list[Round], ours: str, theirs: str) -> float:
    return median(found[ours].load.rate / found[theirs].load.rate for found in rounds)


if __name__ == "__main__":
    main()
