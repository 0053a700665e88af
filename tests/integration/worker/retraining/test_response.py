"""The response to drift: from recorded decisions and their outcomes to a challenger."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text

from helpers.commands import Run
from helpers.csv_files import read_csv, write_csv
from helpers.service import settings
from helpers.shared import shared_folder
from peerloan.book import Fingerprint, open_book, read_loans
from peerloan.database import Database
from peerloan.model import Policy
from peerloan.monitoring.alerts.rules import Alert
from peerloan.monitoring.config import MonitoringConfig
from peerloan.registry import AliasState, BreakingChange, Store
from peerloan.training import CANDIDATES
from peerloan.worker.retraining.response import DriftResponse, respond_to_drift

CALIBRATION = Alert("calibration", "act", "late rate", 1.62, 1.25)
DRIFT = Alert("feature-drift", "act", "int_rate", 0.31, 0.25)
RECALIBRATE = MonitoringConfig(on_drift="recalibrate")
DAY_MS = 86_400_000
# Report two fifths of the late loans, evenly over time, as on time.
FEWER_LATE = """
    UPDATE outcomes SET late = 0, observed = 1 WHERE number IN (
        SELECT number FROM (
            SELECT number, row_number() OVER (ORDER BY decision_id) AS place FROM outcomes
            WHERE late
        ) WHERE place % 5 >= 3
    )
"""
# The newest fifth of 10,000 loans is the test set. It has more than a hundred late loans.
LOANS, OLDER = 10_000, 8_000


class Recorded(NamedTuple):
    """A folder with a champion's store and its ledger, and the rows that it decided on."""

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

    def respond(self, config: MonitoringConfig, *firing: Alert) -> DriftResponse | None:
        now_ms = time.time_ns() // 1_000_000 + 31 * DAY_MS
        return respond_to_drift(config, self.store, self.database, firing, now_ms, fast=True)

    def made(self, config: MonitoringConfig, *firing: Alert) -> DriftResponse:
        found = self.respond(config, *firing)
        assert found is not None
        assert found.kind == "made", found.reason
        return found

    def refused(self, config: MonitoringConfig, *firing: Alert) -> str:
        versions, state = self.store.versions(), self.store.state()
        found = self.respond(config, *firing)
        assert found is not None
        assert (found.kind, found.version, found.verdict) == ("refused", None, None)
        assert (self.store.versions(), self.store.state()) == (versions, state)
        return found.reason

    def fingerprint(self, rows: list[dict[str, str]]) -> str:
        """Return the fingerprint of a book of these rows."""
        path = self.folder / "part.csv"
        write_csv(path, rows)
        definition = self.store.definition(str(self.store.state().champion))
        found = Fingerprint(definition)
        for part in open_book(path).parts():
            batch = read_loans(definition, part, label=True)
            found.update(batch.loans, batch.labels)
        return found.hexdigest()


@pytest.fixture(scope="session")
def watched(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Decisions in a recession by a version trained before it, with all outcomes."""

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
        scored = read_csv(folder / "scored.csv")
        outcomes = [{"id": each["id"], "is_late": each["is_late"]} for each in scored]
        write_csv(folder / "outcomes.csv", outcomes)
        run("outcomes", "outcomes.csv")
        # As if they had been reported a month later.
        recorded = Recorded(folder, [])
        recorded.change(f"UPDATE outcomes SET recorded_ms = recorded_ms + {30 * DAY_MS}")

    folder = shared_folder(tmp_path_factory, "watched", make)
    return Recorded(folder, read_csv(folder / "recession.csv"))


@pytest.fixture
def recorded(watched: Recorded, tmp_path: Path) -> Recorded:
    """A copy that a test may change."""
    shutil.copytree(watched.folder, tmp_path / "own")
    return watched._replace(folder=tmp_path / "own")


def late(rows: list[dict[str, str]]) -> int:
    return sum(each["is_late"] == "1" for each in rows)


def test_a_recalibrated_version_becomes_the_challenger_and_waits_for_a_person(
    recorded: Recorded,
) -> None:
    store, before = recorded.store, recorded.store.state()
    found = recorded.made(RECALIBRATE, CALIBRATION, DRIFT._replace(level="watch"))
    state = store.state()
    assert (state.champion, state.challenger) == (before.champion, found.version)
    assert (state.who, state.why) == ("monitor", found.reason.split("; it waits")[0])
    assert "calibration of late rate is 1.62, beyond 1.25" in state.why
    assert "feature-drift" not in state.why
    assert f"`peerloan models promote {found.version}`" in found.reason
    assert not found.promoted
    assert found.verdict is not None
    assert found.verdict.verdict == "better"
    assert found.verdict.log_loss.difference.high < 0
    assert found.verdict.auc.difference == (0, 0, 0), "only shifted and scaled"

    test_rows = recorded.rows[OLDER:]
    assert (found.verdict.loans, found.verdict.late) == (len(test_rows), late(test_rows))
    recalibrated_on = store.manifest(str(found.version)).recalibrated_on
    assert recalibrated_on is not None
    assert recalibrated_on.loans == OLDER
    assert recalibrated_on.fingerprint == recorded.fingerprint(recorded.rows[:OLDER]), (
        "no other row"
    )
    assert recalibrated_on.sample, "because the sample's loans are in the ledger"

    # While it waits, no second challenger is made.
    assert f"{found.version} still waits" in recorded.refused(RECALIBRATE, CALIBRATION)
    store.dismiss("not now")
    assert store.state().challenger is None
    assert recorded.made(RECALIBRATE, CALIBRATION).version != found.version


def test_a_better_challenger_is_promoted_if_the_config_allows_it(
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
    shifted = recorded.made(config, CALIBRATION)
    assert shifted.verdict is not None
    assert (shifted.verdict.verdict, shifted.promoted) == ("better", False)
    assert shifted.score_shift is not None
    assert shifted.score_shift.factor > 3
    assert "it waits for a person: its scores shifted farther than" in shifted.reason
    assert (store.state().champion, store.state().challenger) == (first, shifted.version)
    store.dismiss()

    # With three fifths of these late loans, no person must review the version.
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

    # Another recalibration of the corrected version makes no difference.
    again = recorded.made(config, CALIBRATION)
    assert again.verdict is not None
    assert again.verdict.verdict == "no difference"
    assert (again.promoted, store.state().champion) == (False, found.version)
    store.dismiss()

    # Two small shifts in a row are a large one from the version that a person chose.
    recorded.change("UPDATE outcomes SET late = 1 WHERE observed = 1")
    farther = recorded.made(config, CALIBRATION)
    assert farther.score_shift is not None
    assert farther.score_shift.against == first
    assert farther.score_shift.factor > 3
    assert (farther.promoted, store.state().champion) == (False, found.version)
    # Once a person has chosen the version in between, shifts are measured against that.
    store.promote(str(farther.version), "as a person has seen")
    store.rollback("and does not like")
    nearer = recorded.made(config, CALIBRATION)
    assert nearer.score_shift is not None
    assert (nearer.score_shift.against, nearer.promoted) == (found.version, True)


def test_retraining_with_a_book_uses_no_test_loan(recorded: Recorded) -> None:
    store = recorded.store
    # A champion with another aim than that of a new version.
    champion = store.publish_with_policy(str(store.state().champion), Policy.by_cost(7.0))
    store.promote(champion)
    before = store.manifest(champion)
    # The book also contains test loans: some with their ids, some only with their values.
    test_rows = recorded.rows[OLDER:]
    others = [each | {"dti": "1.5"} for each in recorded.rows[:500]]
    unnamed = [each | {"loan_id": ""} for each in test_rows[500:]]
    write_csv(recorded.folder / "book.csv", [*others, *test_rows[:500], *unnamed])
    config = MonitoringConfig(on_drift="retrain", book=str(recorded.folder / "book.csv"))
    found = recorded.made(config, DRIFT, CALIBRATION)
    assert "feature-drift of int_rate is 0.31, beyond 0.25 and calibration of" in found.reason
    made = store.manifest(str(found.version))
    assert store.state().challenger == found.version
    assert (made.candidate, made.policy) == (before.candidate, Policy.by_cost(7.0))
    assert made.trained_on.loans == 500 + OLDER
    assert made.trained_on.fingerprint == recorded.fingerprint([*others, *recorded.rows[:OLDER]])
    assert found.verdict is not None
    assert (found.verdict.loans, found.verdict.late) == (len(test_rows), late(test_rows))


def test_no_response_without_a_configured_response_or_an_act_alert(watched: Recorded) -> None:
    assert watched.respond(MonitoringConfig(), CALIBRATION, DRIFT) is None
    assert watched.respond(RECALIBRATE, CALIBRATION._replace(level="watch")) is None
    assert watched.respond(RECALIBRATE) is None


def test_too_few_late_loans_are_refused_with_their_number(recorded: Recorded) -> None:
    kept = "SELECT decision_id FROM outcomes WHERE late ORDER BY decision_id LIMIT {} OFFSET {}"
    # Keep the first 225 late loans: the newest fifth has fewer than a hundred, but the training set
    # needs 200.
    recorded.change(
        f"DELETE FROM outcomes WHERE late AND decision_id NOT IN ({kept.format(225, 0)})"
    )
    reason = recorded.refused(RECALIBRATE, CALIBRATION)
    assert "test loans: expected at least 30 late ones, given 25 of the" in reason
    recorded.change(
        f"DELETE FROM outcomes WHERE late AND decision_id NOT IN ({kept.format(190, 0)})"
    )
    recorded.change(
        "UPDATE decisions SET inputs = '{}' WHERE id = "
        "(SELECT max(decision_id) FROM outcomes WHERE NOT late)"
    )
    reason = recorded.refused(MonitoringConfig(on_drift="retrain"), DRIFT)
    assert "training loans: expected at least 200 late ones, given 190 of " in reason
    assert "1 loan that the champion's definition can't read" in reason
    # All were decided on within a day or two, of which not all outcomes are known now.
    reason = recorded.refused(MonitoringConfig(on_drift="retrain", mature=1.0), DRIFT)
    assert "given 0 of 0; the test loans have 0 late ones of 0; left out: " in reason
    assert "loans of days of which less than 100 % of outcomes is known" in reason


def test_a_challenger_that_was_set_meanwhile_stays(recorded: Recorded) -> None:
    store, basic = recorded.store, next(v for v in recorded.store.versions() if "basic" in v)

    def meanwhile(what: str, done: float) -> None:
        if what.startswith("evaluating") and done == 1.0:
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
        if what.startswith("evaluating") and done == 1.0:
            store.delete(basic)

    found = respond_to_drift(
        RECALIBRATE, store, recorded.database, [CALIBRATION], 2**41, progress=meanwhile
    )
    assert found is not None
    assert (found.kind, store.state().challenger) == ("made", found.version), found.reason
    assert basic not in store.versions()


def test_a_person_can_dismiss_the_challenger(store: Store, run: Run) -> None:
    versions = store.versions()
    store.promote(versions[0])
    assert "there is no challenger" in run("models", "dismiss").stderr
    store.challenge(versions[1])
    done = run("models", "dismiss", "--why", "no better")
    assert done.returncode == 0, done.stderr
    assert versions[1] in done.stderr
    assert (store.state().challenger, store.state().why) == (None, "no better")


def test_impossible_responses_are_refused_with_the_reason(
    recorded: Recorded, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = recorded.refused(RECALIBRATE, CALIBRATION, DRIFT)
    assert "no rule but calibration fires; also firing: feature-drift" in reason
    reason = recorded.refused(MonitoringConfig(on_drift="retrain", book="nowhere.csv"), DRIFT)
    assert "nowhere.csv: no such file" in reason
    wrong = [*recorded.rows[:3], recorded.rows[3] | {"dti": "much"}]
    write_csv(recorded.folder / "wrong.csv", wrong)
    reason = recorded.refused(
        MonitoringConfig(on_drift="retrain", book=str(recorded.folder / "wrong.csv")), DRIFT
    )
    assert "row 4, dti: expected" in reason
    nobody = recorded._replace(folder=store.root.parent)
    assert "there is no champion" in nobody.refused(RECALIBRATE, CALIBRATION)
    # As with a version that was copied from another installation.
    monkeypatch.delitem(CANDIDATES, "additive")
    reason = recorded.refused(MonitoringConfig(on_drift="retrain"), DRIFT)
    assert (
        "is a version of additive, which can't be trained here; expected binned, logistic" in reason
    )
