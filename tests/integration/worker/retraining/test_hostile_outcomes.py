"""Outcomes that a caller tells in order to change which model serves."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from helpers.commands import Run
from helpers.past import DAY_MS, Past, loans_of
from helpers.service import Serve, Service, settings
from peerloan.clock import now_ms
from peerloan.database import Database
from peerloan.registry import Store

Versions = Callable[[str], str]
LOANS, PAGE = 4_000, 1_000
# As an operator of the release before wrote it.
BEFORE = 'answer = "recalibrate"\npromote = true\n'


class Caller:
    """Whoever holds a plain token: asks for predictions, pages through them, tells outcomes."""

    def __init__(self, service: Service, token: str) -> None:
        self._url = service.url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def decide(self, loans: Sequence[dict[str, object]]) -> None:
        for first in range(0, len(loans), PAGE):
            part = loans[first : first + PAGE]
            self._answer("POST", "predictions?reasons=none", json=part)

    def decisions(self) -> Iterator[tuple[str, float]]:
        """The id and the probability of every decision that the ledger shows."""
        cursor = ""
        while True:
            found = self._answer("GET", f"predictions?limit={PAGE}{cursor}")
            for each in found["predictions"]:
                yield each["id"], each["probability"]
            if found["next"] is None:
                return
            cursor = f"&cursor={found['next']}"

    def tell(self, outcomes: Sequence[tuple[str, bool]]) -> dict[str, Any]:
        rows = [{"id": made, "late": late} for made, late in outcomes]
        return self._answer("POST", "outcomes", json={"outcomes": rows})

    def _answer(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = self._session.request(method, f"{self._url}/v1/{path}", timeout=60, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def champion(store: Store, version_of: Versions) -> str:
    store.promote(version_of("additive"))
    return version_of("additive")


@pytest.fixture
def loans(sample_book: Path, store: Store, champion: str) -> list[dict[str, object]]:
    return [
        loan for loan, _ in itertools.islice(loans_of(sample_book, store.load(champion)), LOANS)
    ]


@pytest.fixture
def caller(serve: Serve, run: Run, store: Store, champion: str) -> Caller:
    assert champion
    token = run("token", "new", "shop").stdout.strip()
    return Caller(serve(store), token)


def watch(folder: Path, rules: str, until: str) -> str:
    """A round of `peerloan monitor --every` by these rules; returns its log once it says so."""
    (folder / "rules.toml").write_text(rules, "utf-8")
    environment = os.environ | settings(folder / "store")
    environment["PEERLOAN_RULES"] = str(folder / "rules.toml")
    log = folder / "monitor.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "peerloan", "monitor", "--every", "1h"],
            cwd=folder,
            env=environment,
            stderr=out,
        )
    try:
        end = time.monotonic() + 120
        while until not in (text := log.read_text("utf-8")) and process.poll() is None:
            assert time.monotonic() < end, text
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    return log.read_text("utf-8")


def invented(decisions: Iterator[tuple[str, float]], times: float = 6) -> list[tuple[str, bool]]:
    """Outcomes that nobody can know: so many times as many late loans as are expected, and those
    late that the champion takes for risky, so that another version looks better.
    """
    chance = np.random.default_rng(1)
    return [(made, bool(chance.random() < times * p)) for made, p in decisions]


CONFIRMED = 'promote_confirmed = "Anna Weber, 30 November 2026: servicing alone tells"\n'
PROMOTES = CONFIRMED + "promote = true\n"
OF_SHOP = 'outcomes_from = ["shop"]\ndecisions_from = ["shop"]\n'


def test_a_rules_file_that_promotes_needs_an_operators_word(
    store: Store, champion: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.toml").write_text(BEFORE, "utf-8")
    monkeypatch.setenv("PEERLOAN_RULES", "rules.toml")
    done = run("monitor", "--every", "1h")
    assert done.returncode == 2
    for key in ("outcomes_from", "decisions_from", "promote_confirmed"):
        assert f"{key} = " in done.stderr
    assert store.state().champion == champion


def test_outcomes_of_seconds_ago_change_nothing(
    caller: Caller,
    loans: list[dict[str, object]],
    run: Run,
    store: Store,
    champion: str,
    tmp_path: Path,
) -> None:
    caller.decide(loans)
    answer = caller.tell(invented(caller.decisions()))
    assert answer["stored"] == LOANS
    assert (
        "the first day on which an outcome of this decision counts" in answer["outcomes"][0]["note"]
    )
    # Even if the operator takes this caller for one that tells the truth.
    log = watch(tmp_path, BEFORE + CONFIRMED + OF_SHOP, "calm")
    assert "counted 4,000 decisions and 4,000 outcomes" in log
    assert "begins" not in log
    assert store.state().champion == champion
    assert store.state().challenger is None
    figures = json.loads(run("monitor", "--json").stdout)
    assert (figures["window"]["loans"], figures["realised"]) == (LOANS, None)


@pytest.mark.parametrize(
    ("rules", "reason", "challenges"),
    [
        (
            PROMOTES + 'decisions_from = ["past"]\noutcomes_from = ["servicing"]\n',
            "; 4,000 loans have one of callers not named",
            False,
        ),
        ("", 'add outcomes_from = ["shop"] to the rules', False),
        (
            PROMOTES + 'decisions_from = ["servicing"]\noutcomes_from = ["shop"]\n',
            "; 4,000 loans were decided on for callers not named",
            False,
        ),
        (
            PROMOTES + 'decisions_from = ["past"]\noutcomes_from = ["shop"]\n',
            "it waits for a person: it leaps farther than scores explain",
            True,
        ),
    ],
    ids=[
        "of a caller that is not named",
        "of one caller alone",
        "of decisions of a caller that is not named",
        "of callers that are named",
    ],
)
def test_outcomes_that_are_told_in_time_do_not_either(
    caller: Caller,
    loans: list[dict[str, object]],
    store: Store,
    champion: str,
    tmp_path: Path,
    rules: str,
    reason: str,
    challenges: bool,
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}")
    past = Past(database, tmp_path / "peerloan-seal", store.load(champion))
    today = now_ms() // DAY_MS * DAY_MS
    past.decide(loans, today - 6 * DAY_MS, today - 2 * DAY_MS)
    past.close()
    answer = caller.tell(invented(caller.decisions()))
    assert answer["stored"] == LOANS
    assert "note" not in answer["outcomes"][0]
    log = watch(tmp_path, 'answer = "recalibrate"\n' + rules, "recalibrate: ")
    assert "calibration of late rate begins" in log
    assert reason in log
    assert store.state().champion == champion
    assert (store.state().challenger is not None) == challenges
