"""Watching the ledger: figures of its windows, alarms that begin and end once, one watcher."""

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
from peerloan.book import open_writer
from peerloan.clock import now_ms
from peerloan.database import Database, tables
from peerloan.model import probabilities
from peerloan.monitoring.alerts.events import event_page
from peerloan.monitoring.config import Channels, MonitoringConfig
from peerloan.registry import Bundle, Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.worker import scheduler
from peerloan.worker.lease import Lease
from peerloan.worker.monitoring_round import Round, Watcher
from peerloan.worker.prometheus import Metrics
from peerloan.worker.scheduler import Schedule
from peerloan.worker.time_limited_turn import TimeLimitedTurn

Versions = Callable[[str], str]
Loans = Iterator[dict[str, object]]
DAY = 20_000
PER_DAY = 120


@pytest.fixture
def bundle(store: Store, version_of: Versions) -> Bundle:
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
    """Days of a lender, from one on; loans are decided on each, and told of a week later."""

    def __init__(self, past: Past, books: dict[str, Path], bundle: Bundle) -> None:
        self.past, self.day = past, DAY
        self._loans = {
            name: itertools.cycle(list(loans_of(path, bundle))) for name, path in books.items()
        }
        self._chance = np.random.default_rng(5)
        self._untold: dict[int, tuple[list[bytes], list[object]]] = {}

    def live(
        self, scenario: str, loans: int = PER_DAY, late: str | None = None, times: int = 0
    ) -> int:
        """Another day; returns its end. All loans are late, or so many times as many as are
        expected, or those of the book.
        """
        some = list(itertools.islice(self._loans[scenario], loans))
        own = [loan | {"loan_id": f"{self.day}-{i}"} for i, (loan, _) in enumerate(some)]
        start = self.day * DAY_MS
        made = self.past.decide(own, start, start + DAY_MS)
        labels = [late or label for _, label in some]
        if times:
            margins = self.past.margins([json.dumps(loan) for loan in own])
            often = times * probabilities(margins)
            labels = np.where(self._chance.random(len(own)) < often, "1", "0").tolist()
        self._untold[self.day] = made, list(labels)
        if self.day - 7 in self._untold:
            self.past.tell(*self._untold.pop(self.day - 7))
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


def told(done: Round) -> list[tuple[str, str, str]]:
    return [
        (change.type.rsplit(".", 1)[1], change.alert.rule, change.alert.about)
        for _, change in done.changes
    ]


def test_an_alarm_begins_and_ends_once_and_a_pause_changes_nothing_of_it(
    database: Database, store: Store, days: Days, bundle: Bundle
) -> None:
    watcher = Watcher(database, store, MonitoringConfig(window_days=3))
    seen: list[tuple[str, str, str]] = []
    for _ in range(6):
        seen += told(watcher.round(days.live("calm")))
    assert seen == []
    shock = [days.live("rate-shock") for _ in range(4)]
    # It was not there for three days, and judges them one by one.
    first = watcher.round(shock[-1])
    assert ("began", "feature-drift", "int_rate") in told(first)
    seen += told(first)
    for _ in range(5):
        seen += told(watcher.round(days.live("calm")))
    of_rate = [what for what, rule, about in seen if (rule, about) == ("feature-drift", "int_rate")]
    assert of_rate == ["began", "rose", "ended"]
    assert told(watcher.round(days.day * DAY_MS + 1)) == []
    with database.reading() as connection:
        kinds = connection.execute(
            select(tables.figures.c.kind, tables.figures.c.day).order_by(tables.figures.c.day)
        ).all()
        events = [json.loads(row.event) for row in connection.execute(select(tables.events))]
    daily = [day for kind, day in kinds if kind == "day"]
    assert daily == list(range(DAY, days.day + 1)), "each day that passed, and once"
    assert "month" in {kind for kind, _ in kinds}
    rose = next(each["data"] for each in events if each["type"].endswith("rose"))
    assert (rose["rule"], rose["level"], rose["limit"]) == ("feature-drift", "act", 0.25)
    assert rose["value"] > 0.25
    assert rose["model"] == bundle.version
    assert rose["window"]["loans"] == 3 * PER_DAY


def test_rounds_go_on_by_the_clock_once_it_is_set_back(
    database: Database, store: Store, days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher(database, store, MonitoringConfig(window_days=3))
    now = days.live("calm")
    watcher.round(now)
    watcher.round(now + 3 * DAY_MS)
    caplog.clear()
    watcher.round(days.live("calm"))
    assert [each.getMessage() for each in caplog.records if "clock" in each.getMessage()] == [
        "the rules were applied up to 48 hours ahead of the clock, which was set back: they are "
        "applied by the clock again"
    ]
    caplog.clear()
    watcher.round(days.live("calm"))
    assert "clock" not in caplog.text


def test_outcomes_that_are_not_those_expected_are_heard_once_they_come(
    database: Database, store: Store, days: Days
) -> None:
    watcher = Watcher(database, store, MonitoringConfig(window_days=2))
    done = [watcher.round(days.live("calm", late="1")) for _ in range(7)]
    assert not [each for each in done if told(each)]
    (figures,) = done[-1].figures.values()
    assert figures.realised is None
    last = watcher.round(days.live("calm"))
    assert set(told(last)) == {("began", "calibration", "late rate")}
    (figures,) = last.figures.values()
    assert figures.realised is not None
    assert figures.realised.late == figures.realised.loans == PER_DAY


def test_fewer_loans_are_heard_though_no_figure_can_be_made(
    database: Database, store: Store, days: Days
) -> None:
    watcher = Watcher(database, store, MonitoringConfig(window_days=2))
    for _ in range(8):
        end = days.live("calm", loans=40)
        assert told(watcher.round(end)) == []
    assert told(watcher.round(end + 2 * DAY_MS)) == [("began", "volume-drop", "loans")]
    days.day += 2
    seen = [each for _ in range(2) for each in told(watcher.round(days.live("calm", loans=40)))]
    assert seen == [("ended", "volume-drop", "loans")]


@pytest.mark.longer
def test_the_ledger_s_figures_are_those_of_the_book(
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


def test_a_file_of_rules_is_checked_at_the_start(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules.toml").write_text("window_days = 0", "utf-8")
    monkeypatch.setenv("PEERLOAN_RULES", "rules.toml")
    done = run("monitor", "--every", "1h")
    told = "peerloan: rules.toml: window_days: expected `int` >= 1"
    assert (done.returncode, done.stderr.strip()) == (2, told)


def test_one_watches_at_a_time(ledger_url: str) -> None:
    database = Database(ledger_url)
    database.upgrade()
    first, second = Lease(database), Lease(database)
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    first.end()
    assert [second.take(), first.take()] == [True, False]
    second.end()
    # Of a process that ended while its clock was three days ahead.
    with database.writing() as connection:
        ahead = {"holder": "gone", "until_ms": now_ms() + 3 * DAY_MS}
        connection.execute(update(tables.watchers).values(ahead))
    assert [first.take(), second.take()] == [True, False]
    first.end()


def test_drift_is_answered_as_the_rules_say(
    database: Database, store: Store, days: Days, tmp_path: Path
) -> None:
    days.day = now_ms() // DAY_MS - 20
    for _ in range(20):
        days.live("calm", loans=250, times=4)
    tell = Channels(log=False, command=("tee", str(tmp_path / "told")))
    config = MonitoringConfig(
        on_drift="recalibrate", tell=tell, outcomes_from=("past",), decisions_from=("past",)
    )

    class Over(Exception):
        pass

    def stop(_seconds: float) -> None:
        raise Over

    for _ in range(2):  # again, nothing is due
        with pytest.raises(Over):
            Schedule(database, store, config, 3600, Metrics(database, 3600)).run(stop)
    state = store.state()
    assert state.challenger is not None
    change = store.history()[-1]
    assert (change.action, change.who) == ("challenge", "monitor")
    told = [json.loads(each.event) for each in event_page(database, 9)]
    assert [each["type"].rsplit(".", 2)[1:] for each in told] == [
        ["answer", "made"],
        ["alarm", "began"],
    ]
    made = told[0]["data"]
    assert (made["answer"], made["challenger"]) == ("recalibrate", state.challenger)
    assert made["judgement"]["verdict"] == "better"
    assert 3 < made["leap"]["factor"] < 5
    assert made["leap"]["against"] == state.champion
    assert made["leap"]["too_far"], "for a person to look at"
    judged = made["judgement"]
    held = {"past": {"loans": judged["loans"], "late": judged["late"]}}
    assert made["outcomes_by"]["held"] == held
    assert list(made["outcomes_by"]["learnt"]) == ["past"]
    assert made["decisions_by"] == made["outcomes_by"], "one caller decides and tells"
    assert made["reason"] == change.why or made["reason"].startswith(change.why)
    assert json.loads((tmp_path / "told").read_text())["id"] == told[0]["id"], "the last one"


def test_a_round_that_hangs_is_given_up_and_another_process_takes_over(
    database: Database,
    store: Store,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(scheduler, "STALLED_SECONDS", 0.2)
    hangs = threading.Event()
    answered: list[object] = []
    config = MonitoringConfig(tell=Channels(log=False))
    metrics = Metrics(database, 3600)
    first, second = (Schedule(database, store, config, 3600, each) for each in (metrics, metrics))
    round_of = first._watcher.round

    def hang(now: int, progress: Callable[[float], None]) -> Round:
        assert hangs.wait(60)
        return round_of(now, progress)

    monkeypatch.setattr(first._watcher, "round", hang)
    monkeypatch.setattr(first, "_answer", answered.append)
    first._look()
    assert "a round is given up: no progress for" in caplog.text
    assert not first._leads
    monkeypatch.setattr(scheduler, "STALLED_SECONDS", 60.0)
    first._look()  # it does not begin another beside the one that hangs
    second._look()
    assert second._leads
    hangs.set()
    assert first._turn is not None
    assert first._turn.wait(60)
    assert answered == [], "what was given up does no more"
    first._look()
    assert not first._leads
    shown = generate_latest(metrics._registry).decode()
    assert "peerloan_monitor_rounds_given_up_total 1.0" in shown


def test_a_turn_goes_on_while_it_makes_progress_until_it_is_given_up() -> None:
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
def test_as_a_service_it_goes_on_and_another_takes_over(
    run: Run, store: Store, bundle: Bundle, books: dict[str, Path], tmp_path: Path
) -> None:
    assert run("score", books["rate-shock"], "-o", "scored.csv", "--record").returncode == 0
    logs = [tmp_path / f"monitor-{i}.log" for i in range(2)]
    running = []
    try:
        for log in logs:
            running.append(start(tmp_path, log))
            wait_for(log, "counted 6,000 decisions" if len(running) == 1 else "standing by")
        wait_for(logs[0], f"{bundle.version}: feature-drift of int_rate begins")
        running[0].send_signal(signal.SIGTERM)
        assert running[0].wait(20) == 143
        wait_for(logs[1], "INFO watching")
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
