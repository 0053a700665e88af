"""How close the sampled reasons of an ONNX version are to exact Shapley values.

python bench/reasons.py [BOOK] [--loans N] [--quick]

Fits `boosted` and `basic`, and computes the contributions of some loans twice: by sampling, as in
decisions, and exactly, over every subset of the features with the same background. Without a BOOK
it uses 20,000 loans of the built-in sample.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from peerloan.book import BookError, open_book, open_writer, read_loans
from peerloan.loan import Checks, Loans, Value, default_definition
from peerloan.model import MAX_REASONS
from peerloan.registry import Bundle, Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.stats.arrays import Numbers
from peerloan.training import TrainingError, train

CANDIDATES = ("boosted", "basic")
LOANS, FEW = 20_000, 2_000


@dataclass(frozen=True)
class Nearness:
    """Comparison of one loan's sampled contributions with the exact ones.

    `error` is the largest difference between a feature's two contributions, each as a share of the
    sizes of all. `same_first` says whether the first reasons are the same, and `same_told` is the
    share of reasons that both have.
    """

    error: float
    same_first: bool
    same_told: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("book", nargs="?", metavar="BOOK", help="a book by PeerLoan's definition")
    parser.add_argument("--loans", type=int, default=50, help="number of loans to explain")
    parser.add_argument("--quick", action="store_true", help="few loans, to see whether it works")
    given = parser.parse_args()
    count = 2 if given.quick else given.loans
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(
        "candidate", "error, mean", "error, largest", "same first reason", "reasons in both"
    )
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as bars:
        path = Path(given.book) if given.book else Path(folder) / "sample.csv"
        if not given.book:
            with open_writer(path, SCHEMA) as writer:
                for batch in batches(FEW if given.quick else LOANS):
                    writer.write(batch)
        store = Store(Path(folder) / "store")
        try:
            outcomes = train(open_book(path), default_definition(), store, CANDIDATES, fast=True)
        except (BookError, TrainingError) as error:
            raise SystemExit(f"reasons.py: {error}") from None
        loans = _some(path, count)
        for outcome in outcomes:
            bundle = store.load(outcome.version)
            rows = bars.track(loans.rows(), total=count, description=outcome.candidate)
            others = _background(store, bundle)
            found = [_nearness(bundle, others, row) for row in rows]
            table.add_row(
                outcome.candidate,
                f"{np.mean([each.error for each in found]):.1%}",
                f"{max(each.error for each in found):.1%}",
                f"{np.mean([each.same_first for each in found]):.0%}",
                f"{np.mean([each.same_told for each in found]):.0%}",
            )
    console.print(f"{count} loans, each explained by sampling and exactly")
    console.print(table)


def _some(path: Path, count: int) -> Loans:
    """Return loans spread over the first part of the book."""
    part = next(iter(open_book(path).parts()))
    loans = read_loans(default_definition(), part).loans
    return loans.take(np.linspace(0, loans.size - 1, count).astype(np.int64))


def _background(store: Store, bundle: Bundle) -> list[Sequence[Value]]:
    """Return the loans with which the version's reasons compare."""
    path = store.root / "versions" / bundle.version / "background.json"
    checks = Checks(bundle.definition)
    return [checks.loan(loan).values for loan in json.loads(path.read_bytes())]


def _nearness(bundle: Bundle, others: list[Sequence[Value]], own: Sequence[Value]) -> Nearness:
    sampled, exact = _shares(bundle.model.score(own)[1]), _shares(_exact(bundle, others, own))
    told, due = _told(sampled), _told(exact)
    return Nearness(
        error=float(np.abs(sampled - exact).max()),
        same_first=told[:1] == due[:1],
        same_told=len(set(told) & set(due)) / len(set(told) | set(due)) if told or due else 1.0,
    )


def _shares(contributions: Sequence[float] | Numbers) -> Numbers:
    """Return each contribution as a share of the sizes of all; zeros if all are zero."""
    values = np.asarray(contributions, dtype=np.float64)
    return values / max(float(np.abs(values).sum()), np.finfo(np.float64).tiny)


def _told(contributions: Numbers) -> list[int]:
    """Return the features that would be reasons, largest first."""
    order = np.argsort(-contributions, kind="stable")[:MAX_REASONS]
    return [int(i) for i in order if contributions[i] > 0]


def _exact(bundle: Bundle, others: list[Sequence[Value]], own: Sequence[Value]) -> Numbers:
    """Return Shapley values (fields,) of the estimator's probability (Shapley 1953)."""
    fields = len(own)
    subsets = np.array(list(product((False, True), repeat=fields)))
    mixed = [
        tuple(mine if taken else other for mine, other, taken in zip(own, row, subset, strict=True))
        for subset in subsets.tolist()
        for row in others
    ]
    margins = bundle.model.margins(Loans.of(bundle.definition, mixed))
    # The estimator's probability, before calibration.
    calibration = bundle.manifest.calibration
    p = 1 / (1 + np.exp((calibration.intercept - margins) / calibration.slope))
    worth = p.reshape(len(subsets), len(others)).mean(axis=1)
    sizes = subsets.sum(axis=1)
    shares = np.zeros(fields)
    for field in range(fields):
        without = np.flatnonzero(~subsets[:, field])
        # The same subset with this field added. The first field is the highest bit.
        gains = worth[without + 2 ** (fields - 1 - field)] - worth[without]
        weights = [1 / (fields * comb(fields - 1, int(size))) for size in sizes[without]]
        shares[field] = float(gains @ np.array(weights))
    return shares


if __name__ == "__main__":
    main()
