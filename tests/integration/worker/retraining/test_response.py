"""The answers to drift: from recorded decisions and their outcomes to a challenger."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from helpers.commands import Run
from helpers.service import settings
from helpers.shared import shared_folder
from peerloan.book import Fingerprint, open_book, read_loans
from peerloan.database import Database
from peerloan.monitoring.alerts.rules import Alert
from peerloan.monitoring.config import MonitoringConfig
from peerloan.registry import AliasState, BreakingChange, Store
from peerloan.training import CANDIDATES
from peerloan.worker.retraining.response import DriftResponse, respond_to_drift

CALIBRATION = Alert("calibration", "act", "late rate", 1.62, 1.25)
DRIFT = Alert("feature-drift", "act", "int_rate", 0.31, 0.25)
RECALIBRATE = MonitoringConfig(on_drift="recalibrate")
DAY_MS = 86_400_000
# Two fifths of the late loans, evenly over time, are told on time.
FEWER_LATE = """
    UPDATE outcomes SET late = 0, observed = 1 WHERE number IN (
        SELECT number FROM (
            SELECT number, row_number() OVER (ORDER BY decision_id) AS place FROM outcomes
            WHERE late
        ) WHERE place % 5 >= 3
    )
"""
# The newest fifth of 10,000 judges, which has more than a hundred late loans.
LOANS, OLDER = 10_000, 8_000


class Recorded(NamedTuple):
    """A champion's store and its ledger in a folder, and the rows that were decided on."""

    folder: Path
    rows: list[dict[str, str]]

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def database(self) -> Database:
        return Database(f"sqlite:///{self.folder / 'peerloan-ledger' / 'ledger.db'}")

    def change(self, statement: str) -> None:
        with self.database.writing() as connection:
            connection.execute(text(statement))

    def answer(self, config: MonitoringConfig, *spoken: Alert) -> DriftResponse | None:
        now_ms = time.time_ns() // 1_000_000 + 31 * DAY_MS
        return respond_to_drift(config, self.store, self.database, spoken, now_ms, fast=True)

    def made(self, config: MonitoringConfig, *spoken: Alert) -> DriftResponse:
        found = self.answer(config, *spoken)
        assert found is not None
        assert found.kind == "made", found.reason
        return found

    def refused(self, config: MonitoringConfig, *spoken: Alert) -> str:
        versions, state = self.store.versions(), self.store.state()
        found = self.answer(config, *spoken)
        assert found is not None
        assert (found.kind, found.version, found.judgement) == ("refused", None, None)
        assert (self.store.versions(), self.store.state()) == (versions, state)
        return found.reason

    def fingerprint(self, rows: list[dict[str, str]]) -> str:
        """That of a book of these rows."""
        path = self.folder / "part.csv"
        write(path, rows)
        definition = self.store.definition(str(self.store.state().champion))
        found = Fingerprint(definition)
        for part in open_book(path).parts():
            batch = read_loans(definition, part, label=True)
            found.update(batch.loans, batch.labels)
        return found.hexdigest()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def watched(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Decisions of a recession by a version that was trained in calm times, with all outcomes."""

    def make(folder: Path) -> None:
        shutil.copytree(trained, folder / "store")
        store = Store(folder / "store")
        store.promote(next(v for v in store.versions() if v.startswith("additive")))

        def run(*arguments: object) -> None:
            done = subprocess.run(
                [sys.executable, "-m", "peerloan", *map(str, arguments)],
                cwd=folder,
                env=os.environ | settings(store.root) | {"PEERLOAN_LEDGER": ""},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr

        run("sample", "recession.csv", "--loans", LOANS, "--seed", 11, "--scenario", "recession")
        run("score", "recession.csv", "-o", "scored.csv", "--record")
        scored = read(folder / "scored.csv")
        outcomes = [{"id": each["id"], "is_late": each["is_late"]} for each in scored]
        write(folder / "outcomes.csv", outcomes)
        run("outcomes", "outcomes.csv")
        # As if they had been told a month later, and all of it were over.
        recorded = Recorded(folder, [])
        recorded.change(f"UPDATE outcomes SET recorded_ms = recorded_ms + {30 * DAY_MS}")

    folder = shared_folder(tmp_path_factory, "watched", make)
    return Recorded(folder, read(folder / "recession.csv"))


@pytest.fixture
def recorded(watched: Recorded, tmp_path: Path) -> Recorded:
    """The same, to be changed."""
    shutil.copytree(watched.folder, tmp_path / "own")
    return watched._replace(folder=tmp_path / "own")


def late(rows: list[dict[str, str]]) -> int:
    return sum(each["is_late"] == "1" for each in rows)


def test_recalibrated_it_is_the_challenger_and_waits_for_a_person(recorded: Recorded) -> None:
    store, before = recorded.store, recorded.store.state()
    found = recorded.made(RECALIBRATE, CALIBRATION, DRIFT._replace(level="watch"))
    state = store.state()
    assert (state.champion, state.challenger) == (before.champion, found.version)
    assert (state.who, state.why) == ("monitor", found.reason.split("; it waits")[0])
    assert "calibration of late rate is 1.62, beyond 1.25" in state.why
    assert "feature-drift" not in state.why
    assert f"`peerloan models promote {found.version}`" in found.reason
    assert not found.promoted
    assert found.judgement is not None
    assert found.judgement.verdict == "better"
    assert found.judgement.log_loss.difference.high < 0
    assert found.judgement.auc.difference == (0, 0, 0), "only shifted and scaled"

    held = recorded.rows[OLDER:]
    assert (found.judgement.loans, found.judgement.late) == (len(held), late(held))
    learnt = store.manifest(str(found.version)).recalibrated_on
    assert learnt is not None
    assert learnt.loans == OLDER
    assert learnt.fingerprint == recorded.fingerprint(recorded.rows[:OLDER]), "no other row"
    assert learnt.sample, "which loans of the sample are known by"

    # As long as it waits there is no second one.
    assert f"{found.version} still waits" in recorded.refused(RECALIBRATE, CALIBRATION)
    store.dismiss("not now")
    assert store.state().challenger is None
    assert recorded.made(RECALIBRATE, CALIBRATION).version != found.version


def test_what_is_better_is_promoted_if_the_plan_says_so(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = recorded.store, recorded.store.state().champion
    confirmed = "Anna Weber: servicing alone tells outcomes"
    config = MonitoringConfig(
        on_drift="recalibrate",
        promote=True,
        outcomes_from=(),
        decisions_from=(),
        promote_confirmed=confirmed,
    )
    # A recession makes three times as many loans late as their scores explain.
    leaping = recorded.made(config, CALIBRATION)
    assert leaping.judgement is not None
    assert (leaping.judgement.verdict, leaping.promoted) == ("better", False)
    assert leaping.leap is not None
    assert leaping.leap.factor > 3
    assert "it waits for a person: it leaps farther than scores explain" in leaping.reason
    assert (store.state().champion, store.state().challenger) == (first, leaping.version)
    store.dismiss()

    # Of three fifths of them a person need not be asked.
    recorded.change(FEWER_LATE)
    with monkeypatch.context() as patch:

        def refuse(_store: Store, version: str, why: str, who: str) -> AliasState:
            raise BreakingChange(version, ["purpose: now required"])

        patch.setattr(Store, "promote", refuse)
        waiting = recorded.made(config, CALIBRATION)
    assert not waiting.promoted
    assert "purpose: now required" in waiting.reason
    assert store.state().challenger == waiting.version
    store.dismiss()

    found = recorded.made(config, CALIBRATION)
    assert found.promoted
    *_, challenged, promoted = store.history()
    assert (challenged.action, challenged.challenger) == ("challenge", found.version)
    assert (promoted.action, promoted.champion, promoted.challenger) == (
        *("promote", found.version, None),
    )
    assert promoted.who == "monitor"
    assert "calibration of late rate is 1.62" in promoted.why
    assert promoted.why.endswith(f"; promoted as confirmed by {confirmed}")

    # Put right, it is as good as what another recalibration makes of it.
    again = recorded.made(config, CALIBRATION)
    assert again.judgement is not None
    assert again.judgement.verdict == "no difference"
    assert (again.promoted, store.state().champion) == (False, found.version)
    store.dismiss()

    # One small leap after another is a large one from what a person chose.
    recorded.change("UPDATE outcomes SET late = 1 WHERE observed = 1")
    farther = recorded.made(config, CALIBRATION)
    assert farther.leap is not None
    assert farther.leap.against == first
    assert farther.leap.factor > 3
    assert (farther.promoted, store.state().champion) == (False, found.version)
    # Once a person has chosen the version between, it is the measure.
    store.promote(str(farther.version), "as a person has seen")
    store.rollback("and does not like")
    nearer = recorded.made(config, CALIBRATION)
    assert nearer.leap is not None
    assert (nearer.leap.against, nearer.promoted) == (found.version, True)


def test_retrained_with_a_book_it_learns_nothing_of_what_judges(recorded: Recorded) -> None:
    store = recorded.store
    before = store.manifest(str(store.state().champion))
    # The book holds what judges too: by its ids, and by its values alone.
    held = recorded.rows[OLDER:]
    others = [each | {"dti": "1.5"} for each in recorded.rows[:500]]
    unnamed = [each | {"loan_id": ""} for each in held[500:]]
    write(recorded.folder / "book.csv", [*others, *held[:500], *unnamed])
    config = MonitoringConfig(on_drift="retrain", book=str(recorded.folder / "book.csv"))
    found = recorded.made(config, DRIFT, CALIBRATION)
    assert "feature-drift of int_rate is 0.31, beyond 0.25 and calibration of" in found.reason
    made = store.manifest(str(found.version))
    assert store.state().challenger == found.version
    assert (made.candidate, made.policy.aim) == (before.candidate, before.policy.aim)
    assert made.trained_on.loans == 500 + OLDER
    assert made.trained_on.fingerprint == recorded.fingerprint([*others, *recorded.rows[:OLDER]])
    assert found.judgement is not None
    assert (found.judgement.loans, found.judgement.late) == (len(held), late(held))


def test_nothing_is_done_where_nothing_is_asked_for(watched: Recorded) -> None:
    assert watched.answer(MonitoringConfig(), CALIBRATION, DRIFT) is None
    assert watched.answer(RECALIBRATE, CALIBRATION._replace(level="watch")) is None
    assert watched.answer(RECALIBRATE) is None


def test_few_late_loans_are_refused_by_their_numbers(recorded: Recorded) -> None:
    kept = "SELECT decision_id FROM outcomes WHERE late ORDER BY decision_id LIMIT {} OFFSET {}"
    # Of the late loans the first 225: the newest fifth has fewer than a hundred, and takes none of
    # the 200 that are learnt from.
    recorded.change(
        f"DELETE FROM outcomes WHERE late AND decision_id NOT IN ({kept.format(225, 0)})"
    )
    said = recorded.refused(RECALIBRATE, CALIBRATION)
    assert "at least 30 loans to judge by that are late, given 25 of the" in said
    recorded.change(
        f"DELETE FROM outcomes WHERE late AND decision_id NOT IN ({kept.format(190, 0)})"
    )
    recorded.change(
        "UPDATE decisions SET inputs = '{}' WHERE id = "
        "(SELECT max(decision_id) FROM outcomes WHERE NOT late)"
    )
    said = recorded.refused(MonitoringConfig(on_drift="retrain"), DRIFT)
    assert "at least 200 late loans to learn from, given 190 of " in said
    assert "1 loan can't be read by the champion's definition" in said
    # All were decided on within a day or two, of which not all are known now.
    said = recorded.refused(MonitoringConfig(on_drift="retrain", mature=1.0), DRIFT)
    assert "given 0 of 0, beside 0 of the 0 newest" in said
    assert "loans with an outcome were decided on a day of which less than 100 % is known" in said


def test_who_was_faster_is_left_alone(recorded: Recorded) -> None:
    store, basic = recorded.store, next(v for v in recorded.store.versions() if "basic" in v)

    def meanwhile(what: str, done: float) -> None:
        if what.startswith("judging") and done == 1.0:
            store.challenge(basic)

    found = respond_to_drift(
        RECALIBRATE, store, recorded.database, [CALIBRATION], 2**41, progress=meanwhile
    )
    assert found is not None
    assert "the champion or challenger changed meanwhile" in found.reason
    assert (found.kind, store.state().challenger) == ("refused", basic)


def test_a_deletion_meanwhile_changes_no_alias(recorded: Recorded) -> None:
    store, basic = recorded.store, next(v for v in recorded.store.versions() if "basic" in v)

    def meanwhile(what: str, done: float) -> None:
        if what.startswith("judging") and done == 1.0:
            store.delete(basic)

    found = respond_to_drift(
        RECALIBRATE, store, recorded.database, [CALIBRATION], 2**41, progress=meanwhile
    )
    assert found is not None
    assert (found.kind, store.state().challenger) == ("made", found.version), found.reason
    assert basic not in store.versions()


def test_a_challenger_is_dismissed_by_hand(store: Store, run: Run) -> None:
    versions = store.versions()
    store.promote(versions[0])
    assert "there is no challenger" in run("models", "dismiss").stderr
    store.challenge(versions[1])
    done = run("models", "dismiss", "--why", "no better")
    assert done.returncode == 0, done.stderr
    assert versions[1] in done.stderr
    assert (store.state().challenger, store.state().why) == (None, "no better")


def test_what_can_not_be_done_is_refused_with_its_reason(
    recorded: Recorded, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = recorded.refused(RECALIBRATE, CALIBRATION, DRIFT)
    assert "calibration alone is off, but feature-drift fires too" in said
    said = recorded.refused(MonitoringConfig(on_drift="retrain", book="nowhere.csv"), DRIFT)
    assert "nowhere.csv: no such file" in said
    wrong = [*recorded.rows[:3], recorded.rows[3] | {"dti": "much"}]
    write(recorded.folder / "wrong.csv", wrong)
    said = recorded.refused(
        MonitoringConfig(on_drift="retrain", book=str(recorded.folder / "wrong.csv")), DRIFT
    )
    assert "row 4, dti: expected" in said
    nobody = recorded._replace(folder=store.root.parent)
    assert "there is no champion" in nobody.refused(RECALIBRATE, CALIBRATION)
    # As where a version was brought from elsewhere.
    monkeypatch.delitem(CANDIDATES, "additive")
    said = recorded.refused(MonitoringConfig(on_drift="retrain"), DRIFT)
    assert "is a version of additive, which can't be trained here (binned, logistic" in said
