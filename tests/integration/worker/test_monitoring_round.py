"""Monitoring the ledger: figures of windows, alerts that begin and end once, one leader."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from sqlalchemy import select, update

from helpers.commands import Run
from helpers.past import DAY_MS, Past, loans_of
from helpers.service import settings
from helpers.stores import VersionOf
from peerloan.book import open_writer
from peerloan.clock import now_ms
from peerloan.database import Database, tables
from peerloan.model import probabilities
from peerloan.monitoring.alerts.events import event_page
from peerloan.monitoring.config import Channels, MonitoringConfig
from peerloan.monitoring.counting.decisions import Progress
from peerloan.registry import Bundle, Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.worker.lease import Lease
from peerloan.worker.monitoring_round import Monitor, Round
from peerloan.worker.prometheus import Metrics
from peerloan.worker.scheduler import Schedule
from peerloan.worker.time_limited_turn import TimeLimitedTurn

Loans = Iterator[dict[str, object]]
DAY = 20_000
PER_DAY = 120


@pytest.fixture
def bundle(store: Store, version_of: VersionOf) -> Bundle:
    store.promote(version_of("additive"))
    return store.load(version_of("additive"))


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("books")
    found = {}
    for scenario in ("calm", "rate-shock"):
        found[scenario] = folder / f"{scenario}.csv"
        with open_writer(found[scenario], SCHEMA) as writer:
            for batch in batches(6_000, 3, scenario):
                writer.write(batch)
    return found


class Days:
    """Consecutive days of a lender: decisions on each day, and their outcomes a week later."""

    def __init__(self, past: Past, books: dict[str, Path], bundle: Bundle) -> None:
        self.past, self.day = past, DAY
        self._loans = {
            name: itertools.cycle(list(loans_of(path, bundle))) for name, path in books.items()
        }
        self._chance = np.random.default_rng(5)
        self._unreported: dict[int, tuple[list[bytes], list[object]]] = {}

    def live(
        self, scenario: str, loans: int = PER_DAY, late: str | None = None, times: int = 0
    ) -> int:
        """Add a day with loans of a scenario. Returns its end.

        The outcomes are `late` for all loans, or drawn with `times` their probability, or those of
        the book.
        """
        drawn = list(itertools.islice(self._loans[scenario], loans))
        day_loans = [loan | {"loan_id": f"{self.day}-{i}"} for i, (loan, _) in enumerate(drawn)]
        start = self.day * DAY_MS
        made = self.past.decide(day_loans, start, start + DAY_MS)
        labels = [late or label for _, label in drawn]
        if times:
            margins = self.past.margins([json.dumps(loan) for loan in day_loans])
            late_shares = times * probabilities(margins)
            labels = np.where(self._chance.random(len(day_loans)) < late_shares, "1", "0").tolist()
        self._unreported[self.day] = made, list(labels)
        if self.day - 7 in self._unreported:
            self.past.report_outcomes(*self._unreported.pop(self.day - 7))
        self.day += 1
        return start + DAY_MS


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}")
    found.upgrade()
    return found


@pytest.fixture
def days(
    database: Database, tmp_path: Path, books: dict[str, Path], bundle: Bundle
) -> Iterator[Days]:
    past = Past(database, tmp_path / "peerloan-seal", bundle)
    yield Days(past, books, bundle)
    past.close()


def changes_of(done: Round) -> list[tuple[str, str, str]]:
    """Return (change, rule, subject) of each changed alert."""
    return [
        (change.type.rsplit(".", 1)[1], change.alert.rule, change.alert.about)
        for _, change in done.changes
    ]


def test_an_alert_begins_and_ends_once_also_after_a_pause(
    database: Database, store: Store, days: Days, bundle: Bundle
) -> None:
    watcher = Monitor(database, store, MonitoringConfig(window_days=3))
    seen: list[tuple[str, str, str]] = []
    for _ in range(6):
        seen += changes_of(watcher.round(days.live("calm")))
    assert seen == []
    shock = [days.live("rate-shock") for _ in range(4)]
    # The monitor did not run for three days, and evaluates them one by one.
    first = watcher.round(shock[-1])
    assert ("began", "feature-drift", "int_rate") in changes_of(first)
    seen += changes_of(first)
    for _ in range(5):
        seen += changes_of(watcher.round(days.live("calm")))
    of_rate = [what for what, rule, about in seen if (rule, about) == ("feature-drift", "int_rate")]
    assert of_rate == ["began", "rose", "ended"]
    assert changes_of(watcher.round(days.day * DAY_MS + 1)) == []
    with database.reading() as connection:
        kinds = connection.execute(
            select(tables.figures.c.kind, tables.figures.c.day).order_by(tables.figures.c.day)
        ).all()
        events = [json.loads(row.event) for row in connection.execute(select(tables.events))]
    daily = [day for kind, day in kinds if kind == "day"]
    assert daily == list(range(DAY, days.day + 1)), "every day once"
    assert "month" in {kind for kind, _ in kinds}
    rose = next(each["data"] for each in events if each["type"].endswith("rose"))
    assert (rose["rule"], rose["level"], rose["limit"]) == ("feature-drift", "act", 0.25)
    assert rose["value"] > 0.25
    assert rose["model"] == bundle.version
    assert rose["window"]["loans"] == 3 * PER_DAY


def test_rounds_continue_after_the_clock_was_set_back(
    database: Database, store: Store, days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Monitor(database, store, MonitoringConfig(window_days=3))
    now = days.live("calm")
    watcher.round(now)
    watcher.round(now + 3 * DAY_MS)
    caplog.clear()
    watcher.round(days.live("calm"))
    assert [each.getMessage() for each in caplog.records if "clock" in each.getMessage()] == [
        "the clock was set back: the rules were already applied up to 48 hours ahead of it; they "
        "are applied again from now on"
    ]
    caplog.clear()
    watcher.round(days.live("calm"))
    assert "clock" not in caplog.text


def test_unexpected_outcomes_fire_an_alert_once_they_are_reported(
    database: Database, store: Store, days: Days
) -> None:
    watcher = Monitor(database, store, MonitoringConfig(window_days=2))
    done = [watcher.round(days.live("calm", late="1")) for _ in range(7)]
    assert not [each for each in done if changes_of(each)]
    (figures,) = done[-1].figures.values()
    assert figures.realised is None
    last = watcher.round(days.live("calm"))
    assert set(changes_of(last)) == {("began", "calibration", "late rate")}
    (figures,) = last.figures.values()
    assert figures.realised is not None
    assert figures.realised.late == figures.realised.loans == PER_DAY


def test_a_drop_in_volume_fires_an_alert_without_any_loan(
    database: Database, store: Store, days: Days
) -> None:
    watcher = Monitor(database, store, MonitoringConfig(window_days=2))
    for _ in range(8):
        end = days.live("calm", loans=40)
        assert changes_of(watcher.round(end)) == []
    assert changes_of(watcher.round(end + 2 * DAY_MS)) == [("began", "volume-drop", "loans")]
    days.day += 2
    seen = [
        each for _ in range(2) for each in changes_of(watcher.round(days.live("calm", loans=40)))
    ]
    assert seen == [("ended", "volume-drop", "loans")]


@pytest.mark.longer
def test_figures_of_the_ledger_equal_those_of_the_book(
    run: Run, store: Store, bundle: Bundle, books: dict[str, Path], tmp_path: Path
) -> None:
    book = books["rate-shock"]
    for _ in range(2):  # the latest decision of a loan on a day counts
        done = run("score", book, "-o", "scored.csv", "--record", "--overwrite")
        assert done.returncode == 0, done.stderr
    of_ledger, of_book = (
        json.loads(run("monitor", *more, "--json").stdout) for more in ((), ("--book", book))
    )
    assert of_ledger["window"]["loans"] == of_book["window"]["loans"] == 6_000
    assert of_ledger["features"] == of_book["features"]
    assert of_ledger["score"] == of_book["score"]
    for name, each in of_book["estimated"].items():
        assert of_ledger["estimated"][name] == pytest.approx(each, abs=0.002), name
    assert of_ledger["rules"] == [
        each for each in of_book["rules"] if each["rule"] not in ("calibration", "realised-auc")
    ]
    shown = run("monitor", "--source", "book")
    assert f"6,000 loans by {bundle.version}" in shown.stdout
    none = run("monitor", "--source", "api")
    assert none.returncode == 1
    assert f"{bundle.version} decided on no loan from" in none.stderr


def test_the_monitoring_config_is_checked_at_the_start(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.toml").write_text("window_days = 0", "utf-8")
    monkeypatch.setenv("PEERLOAN_RULES", "rules.toml")
    done = run("monitor", "--every", "1h")
    message = "peerloan: rules.toml: window_days: expected `int` >= 1"
    assert (done.returncode, done.stderr.strip()) == (2, message)


def test_one_process_holds_the_lease_at_a_time(ledger_url: str) -> None:
    database = Database(ledger_url)
    database.upgrade()
    first, second = Lease(database), Lease(database)
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    first.end()
    assert [second.take(), first.take()] == [True, False]
    second.end()
    # The lease of a process that ended while its clock was three days ahead.
    with database.writing() as connection:
        ahead = {"holder": "gone", "until_ms": now_ms() + 3 * DAY_MS}
        connection.execute(update(tables.watchers).values(ahead))
    assert [first.take(), second.take()] == [True, False]
    first.end()


def test_the_response_to_drift_follows_the_config(
    database: Database, store: Store, days: Days, tmp_path: Path
) -> None:
    days.day = now_ms() // DAY_MS - 20
    for _ in range(20):
        days.live("calm", loans=250, times=4)
    tell = Channels(log=False, command=("tee", str(tmp_path / "delivered")))
    config = MonitoringConfig(
        on_drift="recalibrate", tell=tell, outcomes_from=("past",), decisions_from=("past",)
    )

    class Stopped(Exception):
        pass

    def stop(_seconds: float) -> None:
        raise Stopped

    for _ in range(2):  # in the second run nothing is due
        with pytest.raises(Stopped):
            Schedule(database, store, config, 3600, Metrics(database, 3600)).run(stop)
    state = store.state()
    assert state.challenger is not None
    change = store.history()[-1]
    assert (change.action, change.who) == ("challenge", "monitor")
    events = [json.loads(row.event) for row in event_page(database, 9)]
    assert [event["type"].rsplit(".", 2)[1:] for event in events] == [
        ["answer", "made"],
        ["alarm", "began"],
    ]
    made = events[0]["data"]
    assert (made["answer"], made["challenger"]) == ("recalibrate", state.challenger)
    assert made["judgement"]["verdict"] == "better"
    assert 3 < made["leap"]["factor"] < 5
    assert made["leap"]["against"] == state.champion
    assert made["leap"]["too_far"], "a person must review it"
    verdict = made["judgement"]
    held = {"past": {"loans": verdict["loans"], "late": verdict["late"]}}
    assert made["outcomes_by"]["held"] == held
    assert list(made["outcomes_by"]["learnt"]) == ["past"]
    assert made["decisions_by"] == made["outcomes_by"], (
        "one caller requests decisions and reports outcomes"
    )
    assert made["reason"] == change.why or made["reason"].startswith(change.why)
    assert json.loads((tmp_path / "delivered").read_text())["id"] == events[0]["id"], (
        "the last event"
    )


def test_a_hanging_round_is_abandoned_and_another_process_takes_over(
    database: Database,
    store: Store,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    rounds: list[int] = []
    real_round = Monitor.round

    def hang_once(watcher: Monitor, now_ms: int, progress: Callable[[float], None]) -> Round:
        rounds.append(now_ms)
        if len(rounds) > 1:
            return real_round(watcher, now_ms, progress)
        has_begun.set()
        assert may_end.wait(60)
        return Round(Progress(decisions=7))

    monkeypatch.setattr(Monitor, "round", hang_once)
    config = MonitoringConfig(tell=Channels(log=False))
    metrics = Metrics(database, 3600)

    def exported() -> dict[str, float]:
        lines = generate_latest(metrics.registry).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("peerloan_monitor_"))
        return {name: float(value) for name, value in pairs}

    before = exported()  # other tests of this process may have counted under the same names
    first = Schedule(database, store, config, 3600, metrics, stalled_seconds=0.2)
    second = Schedule(database, store, config, 3600, Metrics(database, 3600))
    first.run_if_leader()
    assert has_begun.wait(60)
    assert "a monitoring round is abandoned: no progress for" in caplog.text
    assert not first.is_leader
    first.run_if_leader()
    assert len(rounds) == 1, "no second round starts while the first one hangs"
    second.run_if_leader()
    assert second.is_leader
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "turn":
            thread.join(60)
            assert not thread.is_alive()
    first.run_if_leader()
    assert not first.is_leader
    after = exported()
    abandoned, decisions = (
        "peerloan_monitor_rounds_given_up_total",
        "peerloan_monitor_decisions_total",
    )
    assert after[abandoned] - before[abandoned] == 1
    assert after[decisions] == before[decisions], "an abandoned turn does no more"
    assert "counted 7 decisions" not in caplog.text


def test_a_turn_runs_until_it_is_abandoned() -> None:
    steps: list[int] = []

    def work(turn: TimeLimitedTurn) -> None:
        while True:
            turn.report_progress()
            steps.append(1)
            time.sleep(0.01)

    endless = TimeLimitedTurn(work)
    assert not endless.wait(0.1)
    assert endless.stalled_seconds() < 10
    endless.abandon()
    assert endless.wait(10)
    assert steps


@pytest.mark.longer
def test_a_second_monitor_takes_over_from_a_stopped_one(
    run: Run, store: Store, bundle: Bundle, books: dict[str, Path], tmp_path: Path
) -> None:
    assert run("score", books["rate-shock"], "-o", "scored.csv", "--record").returncode == 0
    logs = [tmp_path / f"monitor-{i}.log" for i in range(2)]
    running = []
    try:
        for log in logs:
            running.append(start(tmp_path, log))
            wait_for(log, "counted 6,000 decisions" if len(running) == 1 else "standing by")
        wait_for(logs[0], f"{bundle.version}: alert feature-drift of int_rate has begun")
        running[0].send_signal(signal.SIGTERM)
        assert running[0].wait(20) == 143
        wait_for(logs[1], "INFO monitoring")
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert "Traceback" not in logs[0].read_text() + logs[1].read_text()


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    environment: dict[str, Any] = os.environ | settings(folder / "store")
    return subprocess.Popen(
        [sys.executable, "-m", "peerloan", "monitor", "--every", "1h"],
        cwd=folder,
        env=environment,
        stderr=log.open("wb"),
    )


def wait_for(log: Path, what: str) -> None:
    end = time.monotonic() + 60
    while what not in log.read_text("utf-8"):
        assert time.monotonic() < end, log.read_text("utf-8")
        time.sleep(0.1)
