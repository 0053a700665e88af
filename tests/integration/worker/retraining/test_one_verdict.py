"""One question, one answer: `models compare` and the monitor judge a challenger by one rule."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peerloan.book import open_book
from peerloan.loan import Loans, parse_definition
from peerloan.model import NumberTable, Policy, ReferenceProfile, Scorecard, probabilities
from peerloan.model.arithmetic import to_unit
from peerloan.registry import Store, TrainedOn, ValidationFigures, draft
from peerloan.worker.retraining.challenger_evaluation import evaluate_challenger

Run = Callable[..., subprocess.CompletedProcess[str]]
DEFINITION = parse_definition(
    """
model = "cars"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[[field]]
name = "age"
kind = "number"
label = "Age"
""",
    "cars.toml",
)
# What the command prints for each verdict on its second version.
PRINTED = {
    "better": "verdict: B is better\n",
    "worse": "verdict: B is worse\n",
    "no difference": "verdict: no difference that these loans could show\n",
}
RIGHT = (-3.0, -2.0, -1.0, 0.0)


def publish(store: Store, points: tuple[float, ...]) -> str:
    """A version with these log-odds at ages below 1, 2, 3, and from 3 on."""
    edges = tuple(float(each) for each in range(1, len(points)))
    table = NumberTable("age", edges, tuple(float(to_unit(point)) for point in points), 0.0)
    sample = Loans(DEFINITION, {"age": np.arange(5.0)}, 5)
    return store.publish(
        draft(
            candidate="additive",
            definition=DEFINITION,
            estimator=Scorecard(0.0, (table,)),
            policy=Policy.by_cost(),
            profile=ReferenceProfile.of(sample, np.array([0.0, 1, 0, 1, 0]), np.full(5, 0.5)),
            trained_on=TrainedOn("cars.csv", "0" * 64, 5, 2, False),
            validation=ValidationFigures({"auc": 0.5}, {}, (), ()),
            libraries={},
        )
    )


def write_book(path: Path, loans: int, seed: int = 1) -> None:
    """Write a book of distinct rows whose outcomes follow the log-odds RIGHT."""
    random = np.random.default_rng(seed)
    ages = random.random(loans) * 4
    late = random.random(loans) < probabilities(np.array(RIGHT)[ages.astype(int)])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("age", "outcome"))
        writer.writerows(
            (age, "bad" if bad else "good") for age, bad in zip(ages, late, strict=True)
        )


@pytest.mark.parametrize(
    ("champion", "challenger", "expected"),
    [
        pytest.param((-2.0, -1.0, 0.0, 1.0), RIGHT, "better", id="level alone"),
        pytest.param((-2.0, -2.0, -2.0, -0.5), (3.0, 4.0, 5.0, 6.0), "worse", id="ranks better"),
        pytest.param(RIGHT, (-3.0, -2.0, -1.0, 0.01), "no difference", id="alike"),
    ],
)
def test_the_command_and_the_monitor_agree(
    tmp_path: Path,
    run: Run,
    champion: tuple[float, ...],
    challenger: tuple[float, ...],
    expected: str,
) -> None:
    store = Store(tmp_path / "store")
    first, second = publish(store, champion), publish(store, challenger)
    write_book(tmp_path / "cars.csv", 3_000)
    by_monitor = evaluate_challenger(
        store.load(first), store.load(second), open_book(tmp_path / "cars.csv")
    )
    compared = run("models", "compare", first, second, "cars.csv")
    assert compared.returncode == 0, compared.stderr
    assert (by_monitor.verdict, PRINTED[expected] in compared.stdout) == (expected, True), (
        compared.stdout
    )
