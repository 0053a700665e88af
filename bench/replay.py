"""How fast a book's decisions are recorded in the ledger, and replayed from it.

python bench/replay.py [--loans N] [--postgres URL] [--quick]

Scores a built-in sample with a scorecard, without and with the ledger, and replays the recorded
decisions, with SQLite and with PostgreSQL. Without --postgres it starts a temporary PostgreSQL from
Debian's package, if that is installed. Each figure is of a complete command, with its start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from databases import databases

LOANS, FEW, TRAINED_ON = 1_000_000, 2_000, 20_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loans", type=int, default=LOANS, help="number of loans to score")
    parser.add_argument("--postgres", metavar="URL", help="an empty PostgreSQL database")
    parser.add_argument("--quick", action="store_true", help="few loans, to see whether it works")
    given = parser.parse_args()
    loans = FEW if given.quick else given.loans
    table = Table("ledger", "score", "score --record", "replay", title="loans a second")
    with (
        tempfile.TemporaryDirectory() as name,
        databases(Path(name), given.postgres) as ledgers,
    ):
        folder = Path(name)
        run(folder, "", "sample", "training.csv", "--loans", TRAINED_ON, "--seed", 1)
        run(folder, "", "sample", "book.csv", "--loans", loans, "--seed", 2)
        run(folder, "", "train", "training.csv", "--candidate", "additive", "--quick", "--promote")
        plain = loans / run(folder, "", "score", "book.csv", "-o", "plain.csv")
        for kind, url in ledgers.items():
            recorded = run(folder, url, "score", "book.csv", "-o", f"{kind}.csv", "--record")
            replayed = run(folder, url, "replay")
            rates = (plain, loans / recorded, loans / replayed)
            table.add_row(kind, *(f"{rate:,.0f}" for rate in rates))
    Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(table)


def run(folder: Path, ledger: str, *arguments: object) -> float:
    """Run a command and return its seconds. If it fails, the benchmark ends."""
    settings = {"PEERLOAN_STORE": str(folder / "store"), "PEERLOAN_LEDGER": ledger}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "peerloan", *map(str, arguments)],
        cwd=folder,
        env=os.environ | settings | {"PEERLOAN_SEAL": str(folder / f"seal-{len(ledger)}")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"replay.py: peerloan {arguments[0]}: {done.stderr.strip()}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
