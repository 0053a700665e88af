"""How far versions leap that are trained on honest and on invented outcomes.

python bench/leaps.py [--seeds N] [--quick]

A champion is trained on the sample's `calm` book. Then new versions are made from 8,000 loans of a
scenario, by recalibration and by retraining, and tested on the next 2,000, as `peerloan monitor`
does with `promote = true`. Prints for each kind of outcomes: how many versions were refused, were
better, and would be promoted; the new mean probability divided by the old one; the farthest factor
of a group of loans; and the lowest rank correlation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from rich.table import Table

from peerloan.book import Book, open_book, open_writer, read_loans
from peerloan.loan import default_definition
from peerloan.model import probabilities
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.stats.arrays import Numbers
from peerloan.training import TrainingError, recalibrate, train
from peerloan.worker.retraining.challenger_evaluation import evaluate_challenger
from peerloan.worker.retraining.score_shift import ScoreShift, measure_score_shift

LEARNT, HELD, TRAINED_ON = 8_000, 2_000, 40_000
Late = npt.NDArray[Any]
Outcomes = Callable[[pa.Table, Numbers, np.random.Generator], Late]


def _own(book: pa.Table, _p: Numbers, _chance: np.random.Generator) -> Late:
    return np.asarray(book["is_late"])


def _times(factor: float) -> Outcomes:
    return lambda _book, p, chance: np.asarray(chance.random(len(p)) < factor * p)


def _at_random(_book: pa.Table, p: Numbers, chance: np.random.Generator) -> Late:
    return np.asarray(chance.random(len(p)) < 3 * p.mean())


def _turned(_book: pa.Table, p: Numbers, chance: np.random.Generator) -> Late:
    """Reverse the order of risk: the safest loans get the probabilities of the riskiest."""
    mirrored = np.sort(p)[::-1][np.argsort(np.argsort(p))]
    return np.asarray(chance.random(len(p)) < 2 * mirrored)


def _one_group(book: pa.Table, p: Numbers, chance: np.random.Generator) -> Late:
    """Honest outcomes, except that a third of one group is reported late."""
    own = np.asarray(book["is_late"]) == 1
    group = np.asarray(book["home_ownership"]) == "OWN"
    return np.asarray(own | (group & (chance.random(len(p)) < 1 / 3)))


def _riskiest_on_time(book: pa.Table, p: Numbers, _chance: np.random.Generator) -> Late:
    """Honest outcomes, except that the riskiest fifth is reported on time."""
    return np.asarray((np.asarray(book["is_late"]) == 1) & (p < np.quantile(p, 0.8)))


KINDS: dict[str, tuple[str, Outcomes]] = {
    "calm": ("calm", _own),
    "rate-shock": ("rate-shock", _own),
    "recession": ("recession", _own),
    "new-channel": ("new-channel", _own),
    "0.62 times as many late": ("calm", _times(0.62)),
    "1.6 times as many late": ("calm", _times(1.6)),
    "invented: 3 times as many late": ("calm", _times(3)),
    "invented: 6 times as many late": ("calm", _times(6)),
    "invented: late at random": ("calm", _at_random),
    "invented: risk order reversed": ("calm", _turned),
    "invented: a third of one group late": ("calm", _one_group),
    "invented: the riskiest fifth on time": ("calm", _riskiest_on_time),
}


@dataclass
class _Found:
    """The results of several tries."""

    leaps: list[ScoreShift] = field(default_factory=list)
    refused: int = 0
    better: int = 0
    promoted: int = 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="a small run, to see whether it works")
    given = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder / "store")
        book = _write(folder / "calm.csv", _sample("calm", TRAINED_ON, 11))
        champion = train(book, default_definition(), store, ("additive",), fast=True)[0].version
        store.promote(champion)
        for answer in ("recalibrate", "retrain"):
            table = Table(title=answer, title_justify="left")
            for column in ("outcomes", "tries", "refused", "better", "promoted", *_FIGURES):
                table.add_column(column, justify="left" if column == "outcomes" else "right")
            for kind in track([*KINDS][:: 6 if given.quick else 1], answer, transient=True):
                found = _tried(folder, store, kind, answer, 1 if given.quick else given.seeds)
                table.add_row(kind, *_row(found))
            console.print(table)


_FIGURES = ("new mean ÷ old", "farthest group, middle 90 %", "lowest rank correlation")


def _row(found: _Found) -> Iterator[str]:
    tries = found.refused + len(found.leaps)
    yield from map(str, (tries, found.refused, found.better, found.promoted))
    if not found.leaps:
        yield from "–––"
        return
    yield f"{np.mean([each.factor for each in found.leaps]):.2f}"
    low, high = np.quantile([each.group_factor for each in found.leaps], [0.05, 0.95])
    yield f"{low:.2f} to {high:.2f}"
    yield f"{min(each.rank_correlation for each in found.leaps):.2f}"


def _tried(folder: Path, store: Store, kind: str, answer: str, seeds: int) -> _Found:
    scenario, outcomes = KINDS[kind]
    champion, found = store.load(str(store.state().champion)), _Found()
    for seed in range(seeds):
        loans = _sample(scenario, LEARNT + HELD, 100 + seed)
        p = probabilities(_margins(store, folder, loans))
        late = outcomes(loans, p, np.random.default_rng(seed)).astype(np.int64)
        told = loans.set_column(loans.schema.get_field_index("is_late"), "is_late", pa.array(late))
        older, newest = (
            _write(folder / f"{place}.csv", part)
            for place, part in (("older", told[:LEARNT]), ("newest", told[LEARNT:]))
        )
        try:
            if answer == "recalibrate":
                made = recalibrate(champion.version, older, store)
            else:
                made = train(older, champion.definition, store, ("additive",), fast=True)[0]
        except TrainingError:
            found.refused += 1
            continue
        new = store.load(made.version)
        better = evaluate_challenger(champion, new, newest).verdict == "better"
        found.leaps.append(measure_score_shift(champion, new, newest))
        found.better += better
        found.promoted += better and not found.leaps[-1].is_too_far
        store.delete(made.version)
    return found


def _margins(store: Store, folder: Path, loans: pa.Table) -> Numbers:
    bundle = store.load(str(store.state().champion))
    parts = _write(folder / "loans.csv", loans).parts()
    return np.concatenate(
        [bundle.score_many(read_loans(bundle.definition, each).loans)[0] for each in parts]
    )


def _sample(scenario: str, loans: int, seed: int) -> pa.Table:
    return pa.Table.from_batches(batches(loans, seed, scenario))


def _write(path: Path, table: pa.Table) -> Book:
    path.unlink(missing_ok=True)
    with open_writer(path, SCHEMA) as writer:
        for batch in table.to_batches():
            writer.write(batch)
    return open_book(str(path))


if __name__ == "__main__":
    main()
