"""Matured decisions of a ledger, and the split of their outcomes into training and test loans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import insert, update

from helpers.ledgers import DAY_MS, Ledger, append, now_ms, record
from peerloan import uuid7
from peerloan.database import tables
from peerloan.database.snapshot import snapshot
from peerloan.ledger import Record
from peerloan.ledger.matured import (
    MaturityFilter,
    SkippedCounts,
    count_skipped,
    count_young,
    matured_decisions,
)
from peerloan.ledger.outcomes import OutcomeRecorder
from peerloan.loan import default_definition
from peerloan.monitoring.config import MonitoringConfig
from peerloan.sample_data import batches
from peerloan.worker.retraining.training_set import split_outcomes

NOW = now_ms()
YEAR = NOW // DAY_MS * DAY_MS - 365 * DAY_MS


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    return Ledger(ledger_url, tmp_path)


def decided(ledger: Ledger, day: int, *loan_ids: str | None, **values: object) -> list[Record]:
    """Store a decision on each loan; `day` counts from a year ago."""
    made = [
        record(YEAR + day * DAY_MS + place, loan_id=loan_id, **values)
        for place, loan_id in enumerate(loan_ids)
    ]
    append(ledger.chain(), made)
    return made


def report_outcomes(
    ledger: Ledger,
    of: Sequence[Record],
    late: bool,
    recorded_ms: int = NOW,
    caller: str = "app",
) -> None:
    rows = [
        {
            "decision_id": UUID(bytes=each.id),
            "late": late,
            "observed": None,
            "recorded_ms": recorded_ms,
            "caller": caller,
        }
        for each in of
    ]
    with ledger.database.writing() as connection:
        connection.execute(insert(tables.outcomes), rows)


def matured(ledger: Ledger, share: float, at_ms: int = NOW) -> list[tuple[bytes, bool]]:
    with snapshot(ledger.database) as connection:
        lists = list(matured_decisions(connection, share, MaturityFilter(at_ms)))
    return [(each.id, each.late) for some in lists for each in some]


def young(ledger: Ledger, share: float) -> int:
    with snapshot(ledger.database) as connection:
        return count_young(connection, share, MaturityFilter(NOW))


def test_the_latest_matured_decision_of_a_loan_with_its_current_outcome(ledger: Ledger) -> None:
    first = decided(ledger, 0, "a", "b", None, None)
    second = decided(ledger, 1, "a")
    later = decided(ledger, 2, "b")
    report_outcomes(ledger, [*first, *second], late=False)
    report_outcomes(ledger, first[1:3], late=True)
    # The newest decision on "b" has no outcome yet.
    assert later
    assert matured(ledger, 0.8) == [
        *((first[1].id, True), (first[2].id, True), (first[3].id, False)),
        (second[0].id, False),
    ]
    with snapshot(ledger.database) as connection:
        (some,) = matured_decisions(connection, 0.8, MaturityFilter(NOW))
    assert [each.loan_id for each in some] == ["b", None, None, "a"]
    assert {each.inputs for each in some} == {first[0].inputs}


def test_outcomes_reported_later_are_not_used(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b")
    report_outcomes(ledger, made, late=False, recorded_ms=NOW - 10)
    report_outcomes(ledger, made[:1], late=True, recorded_ms=NOW + 10)
    assert matured(ledger, 0.8, NOW - 11) == []
    assert matured(ledger, 0.8) == [(made[0].id, False), (made[1].id, False)]
    assert matured(ledger, 0.8, NOW + 10) == [(made[0].id, True), (made[1].id, False)]


def test_days_that_are_not_mature_are_left_out_and_counted(ledger: Ledger) -> None:
    old = decided(ledger, 0, *(f"a{i}" for i in range(10)))
    recent = decided(ledger, 1, "a0", *(f"b{i}" for i in range(9)))
    report_outcomes(ledger, old[:8], late=False)
    report_outcomes(ledger, recent[:7], late=True)
    # The decision of the mature day counts for the loan, although it is the older one.
    assert matured(ledger, 0.8) == [(each.id, False) for each in old[:8]]
    assert young(ledger, 0.8) == 7
    assert len(matured(ledger, 0.7)) == 7 + 7
    assert young(ledger, 0.7) == 0
    assert matured(ledger, 1.0) == []
    assert young(ledger, 1.0) == 15


def test_early_outcomes_are_ignored(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b", "c", "d", "e")
    at = YEAR + 16 * DAY_MS
    report_outcomes(ledger, made[:4], late=True, recorded_ms=at - 1)
    report_outcomes(ledger, made[1:2], late=False, recorded_ms=at)
    report_outcomes(ledger, made[2:3], late=True, recorded_ms=at + DAY_MS)
    # Reported early by a clock that was set back: the timely outcome counts.
    report_outcomes(ledger, made[2:4], late=False, recorded_ms=at - 1)
    report_outcomes(ledger, made[4:], late=False, recorded_ms=NOW)
    with snapshot(ledger.database) as connection:
        eligible = MaturityFilter(NOW, first_day=16)
        (some,) = matured_decisions(connection, 0.6, eligible)
        assert list(matured_decisions(connection, 0.8, eligible)) == []
        assert count_young(connection, 0.8, eligible) == 3
        assert count_skipped(connection, eligible) == SkippedCounts(early=2, others=0, decisions=0)
    assert [(each.loan_id, each.late) for each in some] == [("b", False), ("c", True), ("e", False)]


def test_outcomes_of_named_callers_and_of_the_command_line_are_used(
    ledger: Ledger,
) -> None:
    made = decided(ledger, 0, "a", "b", "c", "d")
    report_outcomes(ledger, made[:2], late=False, caller="servicing")
    report_outcomes(ledger, made[2:3], late=False, caller="anna (command line)")
    # Reported later by callers that are not named, so not used for training.
    report_outcomes(ledger, made[1:], late=True, caller="shop")
    with snapshot(ledger.database) as connection:
        of_any, named = MaturityFilter(NOW), MaturityFilter(NOW, callers=("servicing",))
        (every,) = matured_decisions(connection, 0.5, of_any)
        (some,) = matured_decisions(connection, 0.5, named)
        assert count_skipped(connection, named) == SkippedCounts(early=0, others=1, decisions=0)
    assert [(each.late, each.caller) for each in every[1:]] == [(True, "shop")] * 3
    assert [(each.loan_id, each.late, each.caller) for each in some] == [
        ("a", False, "servicing"),
        ("b", False, "servicing"),
        ("c", False, "anna (command line)"),
    ]


def test_outcomes_of_other_callers_do_not_replace_those_of_named_ones(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b", "c", "d")
    definition = default_definition()

    def report(who: str, *late: bool) -> None:
        rows = [
            {"id": uuid7.text(each.id), "late": value}
            for each, value in zip(made, late, strict=False)
        ]
        answers = OutcomeRecorder(ledger.database, definition, who).record(enumerate(rows))
        assert not any(isinstance(each, list) for each in answers)

    report("servicing", False)
    report("evil", True, True, False)
    report("servicing", True, True, False, True)
    report("evil", False, False, True, False)
    named = MaturityFilter(now_ms(), callers=("servicing",))
    with snapshot(ledger.database) as connection:
        (some,) = matured_decisions(connection, 1.0, named)
        assert count_skipped(connection, named) == SkippedCounts(0, 0, 0)
    assert [each.late for each in some] == [True, True, False, True]
    assert {each.caller for each in some} == {"servicing"}
    # Outcomes that an operator reports by the command replace wrong ones of a caller.
    report("anna (command line)", False, False, True, False)
    with snapshot(ledger.database) as connection:
        (some,) = matured_decisions(connection, 1.0, named._replace(now_ms=now_ms()))
    assert [each.late for each in some] == [False, False, True, False]


def test_decisions_for_named_callers_and_of_the_command_line_are_used(
    ledger: Ledger,
) -> None:
    made = decided(ledger, 0, "a", "b", "c", caller="shop")
    book = decided(ledger, 1, "d", caller="evil", source="book")
    report_outcomes(ledger, [*made, *book], late=False, caller="servicing")
    # Decisions for callers that are not named: not used for training, and without effect on whether
    # a day is mature.
    again = decided(ledger, 0, "a", "b", caller="evil")
    own = decided(ledger, 0, *(f"e{i}" for i in range(9)), caller="evil")
    report_outcomes(ledger, [*again, *own[:2]], late=True, caller="servicing")
    assert len(own) == 9
    named = MaturityFilter(NOW, callers=("servicing",), decided_for=("shop",))
    with snapshot(ledger.database) as connection:
        (some,) = matured_decisions(connection, 1.0, named)
        assert count_young(connection, 1.0, named) == 0
        assert count_skipped(connection, named) == SkippedCounts(early=0, others=0, decisions=4)
        (of_any,) = matured_decisions(connection, 0.5, MaturityFilter(NOW))
    assert [(each.id, each.late, each.decided_for) for each in some] == [
        *((each.id, False, "shop") for each in made),
        (book[0].id, False, "evil (command line)"),
    ]
    assert {each.id for each in again} < {each.id for each in of_any}


def test_training_and_test_loans_are_counted_by_caller(ledger: Ledger, tmp_path: Path) -> None:
    definition = default_definition()
    (batch,) = batches(40, seed=6)
    for place, row in enumerate(batch.to_pylist()):
        values = msgspec.json.encode({name: row[name] for name in definition.names}).decode()
        caller = ("shop", "evil")[place % 4 == 0]
        made = decided(ledger, place, f"l{place}", caller=caller, inputs=values)
        report_outcomes(ledger, made, late=place % 2 == 0, caller="servicing")
    config = MonitoringConfig(outcomes_from=("servicing",), decisions_from=("shop",))
    (tmp_path / "named").mkdir()
    split = split_outcomes(ledger.database, definition, config, tmp_path / "named", NOW)
    assert split.skipped == SkippedCounts(early=0, others=0, decisions=10)
    assert split.deciders.as_json() == {
        "learnt": {"shop": {"loans": 24, "late": 8}},
        "held": {"shop": {"loans": 6, "late": 2}},
    }
    split = split_outcomes(ledger.database, definition, MonitoringConfig(), tmp_path, NOW)
    assert split.deciders.training == {"shop": (24, 8), "evil": (8, 8)}
    assert split.reporters.training == {"servicing": (32, 16)}


def test_purged_decisions_are_not_used(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b")
    report_outcomes(ledger, made[:1], late=False)
    assert matured(ledger, 0.8) == []
    gone = update(tables.decisions).where(tables.decisions.c.id == UUID(bytes=made[1].id))
    with ledger.database.writing() as connection:
        connection.execute(gone.values(inputs=None))
    assert matured(ledger, 0.8) == [(made[0].id, False)]


def test_no_training_loan_equals_a_test_loan(ledger: Ledger, tmp_path: Path) -> None:
    """Loans that are decided on several times with the same values."""
    definition = default_definition()
    (batch,) = batches(40, seed=6)
    values = [
        msgspec.json.encode({name: row[name] for name in definition.names}).decode()
        for row in batch.to_pylist()
    ]
    # The newest fifth are 20 loans of the first day, decided on again.
    for day, chosen in ((0, range(40)), (1, range(40)), (2, range(20))):
        made = [
            record(YEAR + day * DAY_MS + place, loan_id=f"{day}-{place}", inputs=values[place])
            for place in chosen
        ]
        append(ledger.chain(), made)
        report_outcomes(ledger, made[::2], late=True)
        report_outcomes(ledger, made[1::2], late=False)
    split = split_outcomes(ledger.database, definition, MonitoringConfig(), tmp_path, NOW)
    assert split.test == (20, 10)
    assert split.training == (40, 20)
    assert split.duplicates == 40
    assert split.training_book is not None
    rows = [row for part in split.training_book.parts() for row in part.records.to_pylist()]
    assert {row["loan_id"].split("-")[1] for row in rows} == {str(i) for i in range(20, 40)}
