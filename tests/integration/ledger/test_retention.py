"""`peerloan ledger purge`: values go after their time, counts and chains stay."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select, update

from helpers.commands import Call, Run
from helpers.ledgers import DAY_MS, Ledger, append, now_ms, record
from peerloan import clock
from peerloan.cli.commands import ledger as ledger_command
from peerloan.database import LedgerError, tables
from peerloan.ledger import Entry, Key, Record, Seal, queries
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.queries import DecisionFilter
from peerloan.ledger.records import VALUES
from peerloan.ledger.retention import purge, purge_expired_keys
from peerloan.model import BANDS

decisions, outcomes, challenges = tables.decisions, tables.outcomes, tables.challenges
aggregates, purges, keys = tables.aggregates, tables.purges, tables.keys
# Days ago, of the decisions that a ledger of tests begins with.
OLD = (1000, 800, 500, 500, 420, 401)
NEW = (399, 90, 2, 0)
LIMIT = 400


class Aged(Ledger):
    """A ledger with decisions of several years, some with outcomes and challenges."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        now = now_ms()
        self.old = [record(now - days * DAY_MS) for days in OLD]
        self.new = [record(now - days * DAY_MS) for days in NEW]
        chain = self.chain()
        append(chain, self.old + self.new)
        chain.close()
        with self.database.writing() as connection:
            for each, late in (
                *((self.old[0], False), (self.old[2], True), (self.old[0], True)),
                (self.new[0], True),
            ):
                connection.execute(insert(outcomes).values(self.outcome(each, late)))
            for each in (self.old[1], self.new[1]):
                row = {"decision_id": UUID(bytes=each.id), "version": 1, "probability": 0.5}
                connection.execute(insert(challenges).values(row))

    def outcome(self, of: Record, late: bool) -> dict[str, object]:
        return {
            "decision_id": UUID(bytes=of.id),
            "late": late,
            "observed": None,
            "recorded_ms": now_ms(),
            "caller": "app",
        }

    def count(self, table: object) -> int:
        with self.database.reading() as connection:
            rows = select(func.count()).select_from(table)  # type: ignore[arg-type]
            return int(connection.execute(rows).scalar_one())

    def verifies(self) -> bool:
        return not verify(self.database, self.seal).findings.totals


@pytest.fixture
def aged(ledger_url: str, tmp_path: Path) -> Aged:
    return Aged(ledger_url, tmp_path)


def month(made: Record) -> str:
    return clock.moment(int.from_bytes(made.id[:6]))[:7]


def test_old_values_are_erased_and_the_rest_stays(run: Run, aged: Aged) -> None:
    done = run("ledger", "purge", "--older-than", f"{LIMIT}d", "--yes", ledger=aged.url)
    assert done.returncode == 0, done.stderr
    assert "erased 6 decisions" in done.stderr
    with aged.database.reading() as connection:
        rows = connection.execute(select(decisions).order_by(decisions.c.id)).all()
        record_of_it = connection.execute(select(purges)).one()
    assert [row.id.bytes for row in rows] == [each.id for each in aged.old + aged.new]
    for row, each in zip(rows, aged.old + aged.new, strict=True):
        gone = each in aged.old
        values = tuple(getattr(row, name) for name in VALUES)
        assert values == ((None,) * len(VALUES) if gone else each[2:])
        assert (row.salt is None) == gone
        assert (row.digest, row.mac) != (None, None)
    assert (record_of_it.number, record_of_it.decisions) == (1, 6)
    assert abs(record_of_it.before_ms - (now_ms() - LIMIT * DAY_MS)) < DAY_MS
    assert record_of_it.who
    verified = run("ledger", "verify", ledger=aged.url)
    assert (verified.returncode, verified.stdout) == (
        0,
        "10 records in 1 chain, 6 of them purged: all as they were written\n",
    )


def test_counts_stay_by_month_version_source_band_and_outcome_in_force(
    run: Run, aged: Aged
) -> None:
    run("ledger", "purge", "--older-than", f"{LIMIT}d", "--yes", ledger=aged.url)
    sums: dict[tuple[object, ...], list[float]] = {}
    in_force = {aged.old[0].id: 1, aged.old[2].id: 1}
    with aged.database.reading() as connection:
        numbers = {row.version: row.number for row in connection.execute(select(tables.versions))}
        found = {
            tuple(row)[:5]: (row.decisions, row.probabilities)
            for row in connection.execute(select(aggregates))
        }
    for each in aged.old:
        version = numbers[each.version.version]
        group = (month(each), version, each.source, each.band, in_force.get(each.id, -1))
        sums.setdefault(group, []).append(each.probability)
    assert found == {group: (len(some), pytest.approx(sum(some))) for group, some in sums.items()}


def test_what_belongs_to_purged_decisions_goes_with_them(run: Run, aged: Aged) -> None:
    run("ledger", "purge", "--older-than", f"{LIMIT}d", "--yes", ledger=aged.url)
    with aged.database.reading() as connection:
        of_outcomes = list(connection.execute(select(outcomes.c.decision_id)).scalars())
        of_challenges = list(connection.execute(select(challenges.c.decision_id)).scalars())
    assert of_outcomes == [UUID(bytes=aged.new[0].id)]
    assert of_challenges == [UUID(bytes=aged.new[1].id)]


def test_purged_decisions_are_not_shown_any_more(aged: Aged) -> None:
    purge(aged.database, aged.seal, now_ms() - LIMIT * DAY_MS, "somebody")
    database, old, new = aged.database, aged.old, aged.new
    every = [each.id for each in old + new]
    assert queries.find_decisions(database, every).keys() == {each.id for each in new}
    assert [queries.was_purged(database, each) for each in every] == [True] * 6 + [False] * 4
    newest = [each.id for each in reversed(new)]
    assert [each.id for each in queries.decision_page(database, DecisionFilter(), 100)[0]] == newest
    for version in {each.version.version for each in new}:
        shown = queries.decision_page(database, DecisionFilter(version=version), 100)[0]
        assert shown
        assert {each.id for each in shown} <= set(newest)
    by_band = [
        each.id
        for b in BANDS
        for each in queries.decision_page(database, DecisionFilter(band=b), 100)[0]
    ]
    assert sorted(by_band) == sorted(newest)
    assert queries.decision_page(database, DecisionFilter(loan_id=old[0].loan_id), 100) == (
        [],
        False,
    )
    streamed = [each.id for some in queries.stream_decisions(database) for each in some]
    assert streamed == [each.id for each in new]


def test_an_interrupted_purge_that_is_repeated_counts_each_decision_once(aged: Aged) -> None:
    before = now_ms() - LIMIT * DAY_MS

    def interrupt(erased: int) -> None:
        assert aged.verifies()
        if erased == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purge(aged.database, aged.seal, before, "somebody", interrupt, chunk_decisions=2)
    assert aged.verifies()
    for who, erased in (("somebody else", 2), ("a third one", 0)):
        assert purge(aged.database, aged.seal, before, who, chunk_decisions=2) == erased
    assert aged.verifies()
    with aged.database.reading() as connection:
        rows = [tuple(row) for row in connection.execute(select(purges.c.who, purges.c.decisions))]
        counted = connection.execute(select(func.sum(aggregates.c.decisions))).scalar_one()
    assert rows == [("somebody", 4), ("somebody else", 2)]
    assert counted == 6


class FailingSeal(Seal):
    """A seal that fails in the second chunk of a purge, after its values were erased."""

    calls = 0

    def purge_mac(
        self, number: int, time_ms: int, before_ms: int, decisions: int, who: str
    ) -> bytes:
        self.calls += 1
        if self.calls == 2:
            raise OSError("the machine stops")
        return super().purge_mac(number, time_ms, before_ms, decisions, who)


def test_a_chunk_that_fails_changes_nothing(aged: Aged) -> None:
    seal = FailingSeal(aged.seal_folder)
    with pytest.raises(OSError, match="the machine stops"):
        purge(aged.database, seal, now_ms() - LIMIT * DAY_MS, "somebody", chunk_decisions=2)
    with aged.database.reading() as connection:
        erased = connection.execute(
            select(func.count()).select_from(decisions).where(decisions.c.salt.is_(None))
        ).scalar_one()
        counted = connection.execute(select(func.sum(aggregates.c.decisions))).scalar_one()
        purged = connection.execute(select(purges.c.decisions)).scalar_one()
    assert erased == counted == purged == 2
    assert aged.verifies()


def test_a_second_purge_of_more_adds_to_the_counts(run: Run, aged: Aged) -> None:
    for age in ("450d", "12m", "12m"):
        done = run("ledger", "purge", "--older-than", age, "--yes", ledger=aged.url)
        assert done.returncode == 0, done.stderr
    assert "no decisions made before" in done.stderr
    with aged.database.reading() as connection:
        rows = connection.execute(select(purges).order_by(purges.c.number)).all()
    assert [(row.number, row.decisions) for row in rows] == [(1, 4), (2, 3)]
    assert aged.verifies()


TAMPERING = {
    "an edited record of a purge": (
        update(purges).where(purges.c.number == 1).values(decisions=3),
        ["edited purge"],
    ),
    "another who": (
        update(purges).where(purges.c.number == 1).values(who="nobody"),
        ["edited purge"],
    ),
    "a removed record of a purge": (delete(purges).where(purges.c.number == 1), ["removed purge"]),
    "the last one's removed": (delete(purges).where(purges.c.number == 2), ["erased values"]),
    "a purged record removed": (
        delete(decisions).where(decisions.c.seq == 2),
        ["removed record"],
    ),
    "a purged record's digest": (
        update(decisions).where(decisions.c.seq == 2).values(digest=bytes(32)),
        ["edited record"],
    ),
    "values that came after the purge": (
        update(decisions).where(decisions.c.seq == 2).values(loan_id="x"),
        ["edited record"],
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_is_changed_after_a_purge_is_named(aged: Aged, what: str) -> None:
    for days in (450, LIMIT):
        purge(aged.database, aged.seal, now_ms() - days * DAY_MS, "somebody")
    tamper, expected = TAMPERING[what]
    with aged.database.writing() as connection:
        connection.execute(tamper)
    found = verify(aged.database, aged.seal).findings
    kinds = [each.kind for each in found.shown()]
    if what == "the last one's removed":  # two of its decisions are younger than the first one's
        assert kinds == expected * 2
    else:
        assert kinds == expected


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ((1,), ["purge 1: its row in `purges` is missing"]),
        ((1, 2), ["purge 1 to 2: its row in `purges` is missing"]),
        (
            (1, 3),
            ["purge 1: its row in `purges` is missing", "purge 3: its row in `purges` is missing"],
        ),
    ],
)
def test_a_removed_purge_is_named_once_and_those_after_it_are_not(
    aged: Aged, removed: tuple[int, ...], expected: list[str]
) -> None:
    for days in (900, 700, 450, LIMIT):
        purge(aged.database, aged.seal, now_ms() - days * DAY_MS, "somebody")
    with aged.database.writing() as connection:
        connection.execute(delete(purges).where(purges.c.number.in_(removed)))
    findings = verify(aged.database, aged.seal).findings.shown()
    assert {finding.kind for finding in findings} == {"removed purge"}
    assert [finding.what for finding in findings] == expected


def test_a_removed_purge_of_values_that_an_older_one_could_have_erased_is_missed_in_the_sum(
    aged: Aged,
) -> None:
    before = now_ms() - LIMIT * DAY_MS
    purge(aged.database, aged.seal, before, "somebody")
    late = [record(before - DAY_MS) for _ in range(3)]  # by a clock that was wrong
    chain = aged.chain()
    append(chain, late)
    purge(aged.database, aged.seal, before, "somebody")
    assert aged.verifies()
    with aged.database.writing() as connection:
        connection.execute(delete(purges).where(purges.c.number == 2))
    (found,) = verify(aged.database, aged.seal).findings.shown()
    assert found.kind == "removed purge"
    assert "counts 6 purged decisions, but 9 are erased" in found.what


def test_erased_text_is_not_in_sqlite_s_files_any_more(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "peerloan-ledger"
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", tmp_path)
    chain = ledger.chain()
    append(chain, [record(now_ms() - 500 * DAY_MS, loan_id=f"NAMED-{i}") for i in range(300)])
    chain.close()

    def mentions() -> int:
        return sum(path.read_bytes().count(b"NAMED-") for path in folder.iterdir())

    assert mentions() >= 300
    ledger.database.engine.dispose()
    done = run("ledger", "purge", "--older-than", "400d", "--yes", ledger=ledger.url)
    assert done.returncode == 0, done.stderr
    assert mentions() == 0


@pytest.mark.parametrize(
    ("today", "age", "day"),
    [
        ((2025, 3, 31), "1m", "2025-02-28"),
        ((2025, 3, 31), "13m", "2024-02-29"),
        ((2024, 2, 29), "1y", "2023-02-28"),
        ((2024, 2, 29), "4y", "2020-02-29"),
        ((2025, 1, 31), "2m", "2024-11-30"),
        ((2025, 3, 1), "1d", "2025-02-28"),
    ],
)
def test_an_age_ends_on_the_last_day_of_a_shorter_month(
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    today: tuple[int, int, int],
    age: str,
    day: str,
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(*today, 12, tzinfo=tz)

    ledger = Ledger(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}", tmp_path)
    chain = ledger.chain()
    append(chain, [record(1_000)])
    chain.close()
    monkeypatch.setenv("PEERLOAN_LEDGER", ledger.url)
    monkeypatch.setenv("PEERLOAN_SEAL", str(ledger.seal_folder))
    monkeypatch.setattr(ledger_command, "datetime", Clock)
    done = call("ledger", "purge", "--older-than", age, "--yes")
    assert done.code == 0, done.err
    assert f"erased 1 decision made before {day}T12:00:00" in done.err


@pytest.mark.parametrize("age", ["7", "y", "0d", "-1d", "7w", "1.5y", "9999y", ""])
def test_an_age_that_is_none_is_refused(run: Run, aged: Aged, age: str) -> None:
    done = run("ledger", "purge", "--older-than", age, "--yes", ledger=aged.url)
    assert done.returncode == 2
    assert "--older-than" in done.stderr
    assert "expected days, months or years" in done.stderr or "9999y" in done.stderr
    assert aged.count(purges) == 0


def test_where_nobody_can_be_asked_it_must_be_said_that_it_is_meant(run: Run, aged: Aged) -> None:
    done = run("ledger", "purge", "--older-than", "400d", ledger=aged.url)
    assert done.returncode == 2
    assert "6 decisions made before" in done.stderr
    assert "--yes" in done.stderr
    assert aged.count(purges) == 0


@pytest.mark.parametrize(("answer", "code", "purged"), [("n", 130, 0), ("y", 0, 1)])
def test_on_a_terminal_it_is_asked(
    run: Run, tmp_path: Path, answer: str, code: int, purged: int
) -> None:
    aged = Aged(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}", tmp_path)
    here, there = os.openpty()
    process = subprocess.Popen(
        [sys.executable, *["-m", "peerloan", "ledger", "purge", "--older-than", "400d"]],
        env=os.environ | {"PEERLOAN_LEDGER": aged.url, "PEERLOAN_SEAL": str(aged.seal_folder)},
        stdin=there,
        stderr=there,
    )
    os.write(here, f"{answer}\n".encode())
    assert process.wait(timeout=60) == code
    said = os.read(here, 100_000).decode()
    os.close(there)
    os.close(here)
    assert "6 decisions made before" in said
    assert "Continue? [y/N]" in said
    assert aged.count(purges) == purged


def test_nothing_younger_than_a_day_is_purged(aged: Aged) -> None:
    with pytest.raises(LedgerError, match="older than a day"):
        purge(aged.database, aged.seal, now_ms() - DAY_MS + 60_000, "somebody")


@pytest.mark.parametrize("chunk", [1, 3, 5_000])
def test_expired_keys_are_deleted(ledger_url: str, tmp_path: Path, chunk: int) -> None:
    ledger = Ledger(ledger_url, tmp_path)
    chain = ledger.chain()
    now = now_ms()
    for i, age in enumerate((DAY_MS + 60_000,) * 4 + (3 * DAY_MS, DAY_MS - 60_000, 0)):
        chain.append([Entry([record(now - age)], Key.of("app", f"key-{i}", b"body"))])
    assert purge_expired_keys(ledger.database, chunk) == 5
    assert purge_expired_keys(ledger.database, chunk) == 0
    with ledger.database.reading() as connection:
        left = list(connection.execute(select(keys.c.key).order_by(keys.c.key)).scalars())
    assert left == ["key-5", "key-6"]


def test_a_purge_leaves_no_key_that_leads_to_what_it_erased(aged: Aged) -> None:
    chain = aged.chain()
    old = record(now_ms() - 2 * DAY_MS)
    chain.append([Entry([old], Key.of("app", "key", b"body"))])
    purge(aged.database, aged.seal, now_ms() - DAY_MS - 1000, "somebody")
    assert aged.count(keys) == 0
