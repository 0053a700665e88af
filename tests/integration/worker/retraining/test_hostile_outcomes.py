"""Outcomes that a caller reports in order to change the champion."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from helpers.commands import Run
from helpers.past import DAY_MS, Past, loans_of
from helpers.service import Serve, Service, settings
from helpers.stores import VersionOf
from peerloan.clock import now_ms
from peerloan.database import Database
from peerloan.registry import Store

LOANS, PAGE = 4_000, 1_000
# A config as an operator of the previous release wrote it.
BEFORE = 'answer = "recalibrate"\npromote = true\n'


class Caller:
    """A client with a plain token: requests and lists predictions, and reports outcomes."""

    def __init__(self, service: Service, token: str) -> None:
        self._url = service.url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def decide(self, loans: Sequence[dict[str, object]]) -> None:
        for first in range(0, len(loans), PAGE):
            part = loans[first : first + PAGE]
            self._answer("POST", "predictions?reasons=none", json=part)

    def decisions(self) -> Iterator[tuple[str, float]]:
        """Yield the id and the probability of every decision in the ledger."""
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
def champion(store: Store, version_of: VersionOf) -> str:
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
    """Run `peerloan monitor --every` with this config until its log contains a text; return it."""
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
    """Invent outcomes with `times` as many late loans as expected, by the champion's probabilities.

    So another version looks better than the champion.
    """
    chance = np.random.default_rng(1)
    return [(made, bool(chance.random() < times * p)) for made, p in decisions]


CONFIRMED = 'promote_confirmed = "Anna Weber, 30 November 2026: servicing alone tells"\n'
PROMOTES = CONFIRMED + "promote = true\n"
OF_SHOP = 'outcomes_from = ["shop"]\ndecisions_from = ["shop"]\n'


def test_a_config_with_promote_needs_an_operators_confirmation(
    store: Store, champion: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.toml").write_text(BEFORE, "utf-8")
    monkeypatch.setenv("PEERLOAN_RULES", "rules.toml")
    done = run("monitor", "--every", "1h")
    assert done.returncode == 2
    for key in ("outcomes_from", "decisions_from", "promote_confirmed"):
        assert f"{key} = " in done.stderr
    assert store.state().champion == champion


def test_early_outcomes_change_no_alias(
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
    # Even if the operator trusts this caller.
    log = watch(tmp_path, BEFORE + CONFIRMED + OF_SHOP, "no alerts")
    assert "counted 4,000 decisions and 4,000 outcomes" in log
    assert "has begun" not in log
    assert store.state().champion == champion
    assert store.state().challenger is None
    figures = json.loads(run("monitor", "--json").stdout)
    assert (figures["window"]["loans"], figures["realised"]) == (LOANS, None)


@pytest.mark.parametrize(
    ("rules", "reason", "challenges"),
    [
        (
            PROMOTES + 'decisions_from = ["past"]\noutcomes_from = ["servicing"]\n',
            "; left out: 4,000 loans with an outcome reported by a caller that outcomes_from",
            False,
        ),
        ("", 'add outcomes_from = ["shop"] to the config', False),
        (
            PROMOTES + 'decisions_from = ["servicing"]\noutcomes_from = ["shop"]\n',
            "; left out: 4,000 loans decided on for a caller that decisions_from does not name",
            False,
        ),
        (
            PROMOTES + 'decisions_from = ["past"]\noutcomes_from = ["shop"]\n',
            "it waits for a person: its scores shifted farther than drift",
            True,
        ),
    ],
    ids=[
        "reported by a caller that is not named",
        "reported by one caller",
        "of decisions for a caller that is not named",
        "of named callers",
    ],
)
def test_invented_outcomes_do_not_change_the_champion(
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
    assert "alert calibration of late rate has begun" in log
    assert reason in log
    assert store.state().champion == champion
    assert (store.state().challenger is not None) == challenges
