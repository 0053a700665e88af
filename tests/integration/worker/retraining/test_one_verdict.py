"""`models compare` and the monitor judge a challenger by the same rule."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import Call
from helpers.drafts import age_draft
from peerloan.book import open_book
from peerloan.model import Policy, probabilities
from peerloan.registry import Store
from peerloan.worker.retraining.challenger_evaluation import evaluate_challenger

# What the command prints for each verdict on its second version.
PRINTED = {
    "better": "verdict: B is better\n",
    "worse": "verdict: B is worse\n",
    "no difference": "verdict: no detectable difference on these loans\n",
}
RIGHT = (-3.0, -2.0, -1.0, 0.0)


def publish(store: Store, log_odds: tuple[float, ...]) -> str:
    return store.publish(age_draft(log_odds, Policy.by_cost()))


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
    call: Call,
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
    compared = call("models", "compare", first, second, "cars.csv")
    assert compared.code == 0, compared.err
    assert (by_monitor.verdict, PRINTED[expected] in compared.out) == (expected, True), compared.out
    as_json = call("models", "compare", first, second, "cars.csv", "--json")
    assert json.loads(as_json.out)["verdict"] == expected
