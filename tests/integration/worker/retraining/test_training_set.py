"""Which decisions of a ledger have matured, and what was told of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import insert, update

from helpers.ledgers import DAY_MS, Ledger, keep, now_ms, record
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
from peerloan.worker.retraining.training_set import collect

NOW = now_ms()
YEAR = NOW // DAY_MS * DAY_MS - 365 * DAY_MS


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    return Ledger(ledger_url, tmp_path)


def decided(ledger: Ledger, day: int, *loan_ids: str | None, **values: object) -> list[Record]:
    """A decision on each loan, so many days after a year ago."""
    made = [
        record(YEAR + day * DAY_MS + place, loan_id=each, **values)
        for place, each in enumerate(loan_ids)
    ]
    keep(ledger.chain(), made)
    return made


def tell(
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


def found(ledger: Ledger, share: float, at_ms: int = NOW) -> list[tuple[bytes, bool]]:
    with snapshot(ledger.database) as connection:
        lists = list(matured_decisions(connection, share, MaturityFilter(at_ms)))
    return [(each.id, each.late) for some in lists for each in some]


def young(ledger: Ledger, share: float) -> int:
    with snapshot(ledger.database) as connection:
        return count_young(connection, share, MaturityFilter(NOW))


def test_each_loans_latest_decision_with_the_outcome_that_holds(ledger: Ledger) -> None:
    first = decided(ledger, 0, "a", "b", None, None)
    second = decided(ledger, 1, "a")
    later = decided(ledger, 2, "b")
    tell(ledger, [*first, *second], late=False)
    tell(ledger, first[1:3], late=True)
    # Of the newest decision on "b" nothing is known yet.
    assert later
    assert found(ledger, 0.8) == [
        *((first[1].id, True), (first[2].id, True), (first[3].id, False)),
        (second[0].id, False),
    ]
    with snapshot(ledger.database) as connection:
        (some,) = matured_decisions(connection, 0.8, MaturityFilter(NOW))
    assert [each.loan_id for each in some] == ["b", None, None, "a"]
    assert {each.inputs for each in some} == {first[0].inputs}


def test_what_was_told_later_is_not_known_yet(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b")
    tell(ledger, made, late=False, recorded_ms=NOW - 10)
    tell(ledger, made[:1], late=True, recorded_ms=NOW + 10)
    assert found(ledger, 0.8, NOW - 11) == []
    assert found(ledger, 0.8) == [(made[0].id, False), (made[1].id, False)]
    assert found(ledger, 0.8, NOW + 10) == [(made[0].id, True), (made[1].id, False)]


def test_a_day_of_which_too_little_is_known_is_left_out_and_counted(ledger: Ledger) -> None:
    old = decided(ledger, 0, *(f"a{i}" for i in range(10)))
    recent = decided(ledger, 1, "a0", *(f"b{i}" for i in range(9)))
    tell(ledger, old[:8], late=False)
    tell(ledger, recent[:7], late=True)
    # The loan's decision of the day that has matured stands for it, though it is the older one.
    assert found(ledger, 0.8) == [(each.id, False) for each in old[:8]]
    assert young(ledger, 0.8) == 7
    assert len(found(ledger, 0.7)) == 7 + 7
    assert young(ledger, 0.7) == 0
    assert found(ledger, 1.0) == []
    assert young(ledger, 1.0) == 15


def test_what_was_told_before_it_can_be_known_is_as_if_it_had_not_been(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b", "c", "d", "e")
    at = YEAR + 16 * DAY_MS
    tell(ledger, made[:4], late=True, recorded_ms=at - 1)
    tell(ledger, made[1:2], late=False, recorded_ms=at)
    tell(ledger, made[2:3], late=True, recorded_ms=at + DAY_MS)
    # By a clock that was set back: what counts holds.
    tell(ledger, made[2:4], late=False, recorded_ms=at - 1)
    tell(ledger, made[4:], late=False, recorded_ms=NOW)
    with snapshot(ledger.database) as connection:
        eligible = MaturityFilter(NOW, first_day=16)
        (some,) = matured_decisions(connection, 0.6, eligible)
        assert list(matured_decisions(connection, 0.8, eligible)) == []
        assert count_young(connection, 0.8, eligible) == 3
        assert count_skipped(connection, eligible) == SkippedCounts(early=2, others=0, decisions=0)
    assert [(each.loan_id, each.late) for each in some] == [("b", False), ("c", True), ("e", False)]


def test_outcomes_of_the_callers_that_are_named_and_of_the_command_line_hold(
    ledger: Ledger,
) -> None:
    made = decided(ledger, 0, "a", "b", "c", "d")
    tell(ledger, made[:2], late=False, caller="servicing")
    tell(ledger, made[2:3], late=False, caller="anna (command line)")
    # Told later by others, which are not learnt from.
    tell(ledger, made[1:], late=True, caller="shop")
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


def test_who_tells_first_or_in_between_takes_nobody_s_place(ledger: Ledger) -> None:
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
    # And what an operator tells by the command remedies what a caller told wrongly.
    report("anna (command line)", False, False, True, False)
    with snapshot(ledger.database) as connection:
        (some,) = matured_decisions(connection, 1.0, named._replace(now_ms=now_ms()))
    assert [each.late for each in some] == [False, False, True, False]


def test_decisions_for_the_callers_that_are_named_and_of_the_command_line_are_learnt_from(
    ledger: Ledger,
) -> None:
    made = decided(ledger, 0, "a", "b", "c", caller="shop")
    book = decided(ledger, 1, "d", caller="evil", source="book")
    tell(ledger, [*made, *book], late=False, caller="servicing")
    # Decided again by others, which are not learnt from; nor do they make a day look young.
    again = decided(ledger, 0, "a", "b", caller="evil")
    own = decided(ledger, 0, *(f"e{i}" for i in range(9)), caller="evil")
    tell(ledger, [*again, *own[:2]], late=True, caller="servicing")
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


def test_whose_decisions_are_learnt_from_is_counted(ledger: Ledger, tmp_path: Path) -> None:
    definition = default_definition()
    (batch,) = batches(40, seed=6)
    for place, row in enumerate(batch.to_pylist()):
        values = msgspec.json.encode({name: row[name] for name in definition.names}).decode()
        caller = ("shop", "evil")[place % 4 == 0]
        made = decided(ledger, place, f"l{place}", caller=caller, inputs=values)
        tell(ledger, made, late=place % 2 == 0, caller="servicing")
    config = MonitoringConfig(outcomes_from=("servicing",), decisions_from=("shop",))
    (tmp_path / "named").mkdir()
    found = collect(ledger.database, definition, config, tmp_path / "named", NOW)
    assert found.passed_over == SkippedCounts(early=0, others=0, decisions=10)
    assert found.deciders.as_json() == {
        "learnt": {"shop": {"loans": 24, "late": 8}},
        "held": {"shop": {"loans": 6, "late": 2}},
    }
    found = collect(ledger.database, definition, MonitoringConfig(), tmp_path, NOW)
    assert found.deciders.learnt == {"shop": (24, 8), "evil": (8, 8)}
    assert found.callers.learnt == {"servicing": (32, 16)}


def test_what_was_purged_is_as_if_it_had_never_been(ledger: Ledger) -> None:
    made = decided(ledger, 0, "a", "b")
    tell(ledger, made[:1], late=False)
    assert found(ledger, 0.8) == []
    gone = update(tables.decisions).where(tables.decisions.c.id == UUID(bytes=made[1].id))
    with ledger.database.writing() as connection:
        connection.execute(gone.values(inputs=None))
    assert found(ledger, 0.8) == [(made[0].id, False)]


def test_no_loan_is_learnt_from_that_judges(ledger: Ledger, tmp_path: Path) -> None:
    """Loans that are decided on again and again, each time with the same values."""
    definition = default_definition()
    (batch,) = batches(40, seed=6)
    values = [
        msgspec.json.encode({name: row[name] for name in definition.names}).decode()
        for row in batch.to_pylist()
    ]
    # The newest fifth are 20 loans of the first day once more.
    for day, chosen in ((0, range(40)), (1, range(40)), (2, range(20))):
        made = [
            record(YEAR + day * DAY_MS + place, loan_id=f"{day}-{place}", inputs=values[place])
            for place in chosen
        ]
        keep(ledger.chain(), made)
        tell(ledger, made[::2], late=True)
        tell(ledger, made[1::2], late=False)
    parted = collect(ledger.database, definition, MonitoringConfig(), tmp_path, NOW)
    assert parted.held == (20, 10)
    assert parted.learnt == (40, 20)
    assert parted.again == 40
    assert parted.older is not None
    rows = [row for part in parted.older.parts() for row in part.records.to_pylist()]
    assert {row["loan_id"].split("-")[1] for row in rows} == {str(i) for i in range(20, 40)}
