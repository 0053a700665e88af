"""What became of loans: told by the API and by files, kept once, corrected with history."""

from __future__ import annotations

import csv
import gzip
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text, update

from helpers.apps import create_app
from helpers.commands import Run
from helpers.service import settings as process_settings
from helpers.stores import VersionOf
from peerloan.cli import main
from peerloan.database import Database, LedgerUnavailable
from peerloan.database.tables import decisions, outcomes
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.ledger.outcomes import OutcomeRecorder, latest_outcomes
from peerloan.loan import Problem, default_definition, parse_definition
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.uuid7 import text as id_text

Rows = Sequence[dict[str, Any]]
DAY_MS = 86_400_000
FIRST, LAST = default_definition().roles.horizon


def day(ago: int) -> str:
    return str(datetime.now(UTC).date() - timedelta(days=ago))


class Ledger:
    """A database, and decisions made for a test at times of its choice."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.database = Database(url)
        self.database.upgrade()
        self.chain = Chain(self.database, Seal(folder))

    def decide(self, *made: tuple[str | None, int]) -> list[str]:
        """Decisions on loans, each so many days ago; their ids."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        # Not `random`, which Hypothesis begins anew with each example.
        records = []
        for loan_id, ago in made:
            ms = int(today.timestamp() * 1000) - ago * DAY_MS + secrets.randbelow(1000)
            bits = secrets.randbits(62)
            made_id = (ms << 80 | 0x7 << 76 | 0x2 << 62 | bits).to_bytes(16)
            version = Version("additive-1", "d" * 64, 0.05)
            records.append(
                Record(
                    *(made_id, version, "api", "me", "request", None, loan_id, "{}"),
                    *(-3.0, 0.04, False, 1, None, None),
                )
            )
        self.chain.append([Entry(records)])
        return [id_text(record.id) for record in records]

    def rows(self) -> int:
        """How many outcomes are kept, history included."""
        with self.database.reading() as connection:
            return connection.execute(select(func.count()).select_from(outcomes)).scalar_one()

    def history(self, made: str) -> list[tuple[bool, date | None, str]]:
        """What was told of a decision, the one that holds last."""
        key = bytes.fromhex(made.replace("-", ""))
        with self.database.reading() as connection:
            known = latest_outcomes(connection, [key]).get(key)
        every = [] if known is None else [*known.earlier, known.current]
        return [(each.late, each.observed, each.caller) for each in every]

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Another process is writing, and does not end."""
        with self.database.engine.connect() as connection:
            if self.database.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(text("SELECT pg_advisory_xact_lock(7382650322)"))
            yield
            connection.rollback()


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(ledger_url, tmp_path / "seal")
    yield made
    made.chain.close()


@pytest.fixture
def client(store: Store, version_of: VersionOf, ledger: Ledger, tmp_path: Path) -> FlaskClient:
    store.promote(version_of("additive"))
    chosen = Settings(store.root, ledger=ledger.url, seal=tmp_path / "seal")
    return create_app(chosen, on_loopback=True).test_client()


def told(client: FlaskClient, *rows: Any) -> Any:
    """The answer to outcomes, which is as the API's own description says."""
    answer = client.post("/v1/outcomes", json={"outcomes": rows})
    assert answer.status_code == 200, answer.text
    document: Any = client.get("/openapi.json").json
    described = document["paths"]["/v1/outcomes"]["post"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    schema = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json)
    body: Any = answer.json
    assert len(body["outcomes"]) == len(rows)
    counted = [each.get("status", "refused") for each in body["outcomes"]]
    for status in ("stored", "unchanged", "corrected", "refused"):
        assert body[status] == counted.count(status)
    return body["outcomes"]


def write(path: Path, rows: Rows) -> Path:
    """A table as CSV, gzipped CSV, JSON lines or Parquet, by the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
        return path
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def counts(done: subprocess.CompletedProcess[str]) -> tuple[int, ...]:
    assert done.stdout, done.stderr
    body = json.loads(done.stdout)
    return tuple(body[name] for name in ("stored", "unchanged", "corrected", "refused"))


# The API


def test_outcomes_are_told_by_decision_or_by_loan_and_day(
    client: FlaskClient, ledger: Ledger
) -> None:
    a, b, c, d = ledger.decide(("A", 30), ("B", 30), (None, 30), ("7", 30))
    answers = told(
        client,
        {"id": a, "late": True},
        {"loan_id": "B", "date": day(1), "late": 0},
        {"id": c.upper(), "date": day(30), "is_late": 1},
        {"loan_id": 7, "date": day(0), "is_late": 0, "id": None},
    )
    assert answers == [
        {"id": a, "late": True, "status": "stored"},
        {"id": b, "late": False, "status": "stored"},
        {"id": c, "late": True, "status": "stored"},
        {"id": d, "late": False, "status": "stored"},
    ]
    assert ledger.history(a) == [(True, None, "")]
    assert ledger.history(b) == [(False, date.fromisoformat(day(1)), "")]


def test_by_loan_it_belongs_to_the_latest_decision_within_the_horizon(
    client: FlaskClient, ledger: Ledger
) -> None:
    far, near, newest = ledger.decide(("A", 300), ("A", 100), ("A", 90))
    at = {"loan_id": "A", "late": True}
    # Younger than the first day of the horizon it does not count, older than its last neither.
    assert told(client, at | {"date": day(90 - FIRST)})[0]["id"] == newest
    assert told(client, at | {"date": day(90 - FIRST + 1)})[0]["id"] == near
    assert told(client, at | {"date": day(300 - LAST)})[0]["id"] == far
    assert told(client, at | {"date": day(300 - FIRST)})[0]["id"] == far
    for ago in (300 - FIRST + 1, 300 - LAST - 1):
        (answer,) = told(client, at | {"date": day(ago)})
        expected = f"a loan with a decision {FIRST} to {LAST} days before {day(ago)}"
        assert answer == {"errors": [{"field": "loan_id", "expected": expected, "given": "'A'"}]}


def test_an_id_is_one_in_each_spelling(client: FlaskClient, ledger: Ledger) -> None:
    """Releases before recorded an id of doubles as 2001.0, and one of decimals as 2003.00."""
    older, double, newer, decimal, text = ledger.decide(
        ("2001.0", 40), ("2002.0", 30), ("2001", 20), ("2003.00", 30), ("v1.0", 30)
    )
    when = {"date": day(10), "late": True}
    rows = [{"loan_id": 2001} | when, {"loan_id": "2002"} | when, {"loan_id": 2003.0} | when]
    rows += [{"loan_id": "v1.0"} | when, {"loan_id": "v1"} | when]
    answers = told(client, *rows)
    assert [each.get("id") for each in answers[:4]] == [newer, double, decimal, text]
    assert answers[4]["errors"][0]["expected"].startswith("a loan with a decision")
    # Before the newer one was made, the older one is the latest.
    (again,) = told(client, {"loan_id": "2001.0", "date": day(25), "late": False})
    assert again["id"] == older
    (also,) = told(client, {"loan_id": "2001", "id": older, "date": day(25), "late": False})
    assert also["status"] == "unchanged"
    for asked in ("2001", "2001.0"):
        found = client.get(f"/v1/predictions?loan_id={asked}").json
        assert found is not None
        assert [each["id"] for each in found["predictions"]] == [newer, older]


def test_a_correction_keeps_the_history_and_a_repetition_adds_nothing(
    client: FlaskClient, ledger: Ledger
) -> None:
    (a,) = ledger.decide(("A", 30))
    statuses = [
        told(client, {"id": a} | each)[0]["status"]
        for each in (
            {"late": False, "date": day(10)},
            {"late": False, "date": day(10)},
            {"late": False},
            {"late": False, "date": day(5)},
            {"late": True},
            {"late": True},
        )
    ]
    assert statuses == [
        *("stored", "unchanged", "unchanged"),
        *("corrected", "corrected", "unchanged"),
    ]
    days = [date.fromisoformat(day(10)), date.fromisoformat(day(5))]
    assert ledger.history(a) == [(False, days[0], ""), (False, days[1], ""), (True, None, "")]


def test_nobody_s_word_takes_the_place_of_another_s_equal_one(ledger: Ledger) -> None:
    (a,) = ledger.decide(("A", 30))
    definition = default_definition()

    def status(who: str, late: bool) -> str:
        row = {"id": a, "late": late}
        (answer,) = OutcomeRecorder(ledger.database, definition, who).record([(0, row)])
        assert not isinstance(answer, list)
        return answer.status

    told_in_turn = [
        *(("evil", True, "stored"), ("servicing", True, "stored"), ("evil", True, "unchanged")),
        *(("servicing", True, "unchanged"), ("servicing", False, "corrected")),
        *(("evil", True, "corrected"), ("servicing", True, "corrected")),
        # Another one said otherwise in between, and one more the same again.
        *(("office", False, "corrected"), ("evil", False, "corrected")),
        *(("office", False, "unchanged"), ("servicing", False, "corrected")),
        *(("evil", True, "corrected"), ("office", True, "corrected"), ("evil", True, "unchanged")),
        # Whoever runs the command is one and the same.
        *(("anna (command line)", True, "stored"), ("ben (command line)", True, "unchanged")),
        ("ben", True, "stored"),
    ]
    assert [(who, late, status(who, late)) for who, late, _ in told_in_turn] == told_in_turn
    kept = [(late, who) for who, late, answered in told_in_turn if answered != "unchanged"]
    assert [(late, who) for late, _, who in ledger.history(a)] == kept
    # However often each one repeats the last word.
    for who in ("evil", "servicing", "office", "ben", "anna (command line)") * 2:
        status(who, True)
    assert len(ledger.history(a)) == len(kept) + 1, "servicing's, which had said otherwise"


def test_what_is_told_too_early_is_kept_and_has_to_be_told_again(
    client: FlaskClient, ledger: Ledger, run: Run, tmp_path: Path
) -> None:
    a, b = ledger.decide(("A", 0), ("B", FIRST))
    note = (
        f"reported before {day(-FIRST)}, the first day on which an outcome of this decision "
        "counts; it is stored, but monitoring and training don't use it; report it again from "
        "that day on"
    )
    (answer,) = told(client, {"id": a, "late": True})
    assert answer == {"id": a, "late": True, "status": "stored", "note": note}
    (answer,) = told(client, {"id": a, "late": True})
    assert (answer["status"], answer["note"]) == ("unchanged", note)
    assert told(client, {"id": b, "late": True}) == [{"id": b, "late": True, "status": "stored"}]
    with ledger.database.writing() as connection:
        a_day_before = {"recorded_ms": outcomes.c.recorded_ms - DAY_MS}
        of_b = outcomes.c.decision_id == UUID(b)
        connection.execute(update(outcomes).where(of_b).values(a_day_before))
    assert told(client, {"id": b, "late": True}) == [{"id": b, "late": True, "status": "stored"}]
    assert told(client, {"id": b, "late": True})[0]["status"] == "unchanged"
    assert told(client, {"id": b, "late": False})[0]["status"] == "corrected"
    assert [late for late, _, _ in ledger.history(b)] == [True, True, False]
    write(tmp_path / "told.csv", [{"id": a, "late": 0}, {"id": b, "late": 0}])
    done = run("outcomes", "told.csv", ledger=ledger.url)
    assert done.stdout == ("told.csv: 2 rows: 1 stored, 0 unchanged, 1 corrected, 0 refused\n"), (
        done.stderr
    )
    assert f"1 outcome came earlier than {FIRST} day" in done.stderr
    assert json.loads(run("outcomes", "told.csv", "--json", ledger=ledger.url).stdout)["early"] == 1
    *_, (_, _, caller) = ledger.history(a)
    assert caller.endswith(" (command line)")


@pytest.mark.parametrize(
    ("row", "field", "expected", "shown"),
    [
        ({"id": "no", "late": 1}, "id", "a decision's id, which is a UUID", "'no'"),
        ({"id": 5, "late": 1}, "id", "a decision's id, which is a UUID", "5"),
        ({"late": 1}, "id", "a decision's id, or a loan_id and a date", "nothing"),
        (
            {"loan_id": "A", "late": 1},
            "date",
            "the day on which the outcome was observed",
            "nothing",
        ),
        ({"loan_id": "", "date": "A", "late": 1}, "date", "a day, such as 2026-11-25", "'A'"),
        ({"loan_id": [], "late": 1}, "loan_id", "text of 1 to 200 characters", "[]"),
        ({"id": "A", "date": "2026-02-30"}, "date", "a day, such as 2026-11-25", "'2026-02-30'"),
        ({"id": "A", "date": "20260101"}, "date", "a day, such as 2026-11-25", "'20260101'"),
        ({"id": "A", "date": day(-2)}, "date", "or an earlier day", f"'{day(-2)}'"),
        ({"id": "A", "late": "maybe"}, "late", "true (late) or false (on time)", "'maybe'"),
        ({"id": "A", "late": 2}, "late", "true (late) or false (on time)", "2"),
        ({"id": "A", "late": {}}, "late", "true (late) or false (on time)", "{}"),
        ({"id": "A", "is_late": "yes"}, "is_late", "1 (late) or 0 (on time)", "'yes'"),
        ({"id": "A"}, "late", "true (late) or false (on time)", "nothing"),
        ({"id": "A", "is_late": None}, "is_late", "1 (late) or 0 (on time)", "nothing"),
        ({"id": "A", "late": 1, "is_late": 1}, "is_late", "only late or is_late, not both", "1"),
        ({"id": "A", "lates": 1}, "lates", "only id, loan_id, date, late, is_late", "1"),
        (3, "(outcome)", "an object", "3"),
    ],
)
def test_what_is_wrong_with_one_is_said_of_it_and_the_others_are_kept(
    client: FlaskClient, ledger: Ledger, row: Any, field: str, expected: str, shown: str
) -> None:
    good, named = ledger.decide(("A", 30), ("B", 30))
    if isinstance(row, dict) and row.get("id") == "A":
        row = row | {"id": named}
    answers = told(client, row, {"id": good, "late": 1})
    found = [each for each in answers[0]["errors"] if each["field"] == field]
    assert len(found) == 1
    assert expected in found[0]["expected"]
    assert found[0]["given"] == shown
    assert answers[1]["status"] == "stored"
    assert ledger.rows() == 1


def test_decisions_that_are_not_there_or_purged_or_later_are_named(
    client: FlaskClient, ledger: Ledger
) -> None:
    purged, later, named = ledger.decide(("A", 30), ("B", 30), ("C", 30))
    key = decisions.c.id == UUID(purged)
    with ledger.database.writing() as connection:
        connection.execute(decisions.update().where(key).values(inputs=None, loan_id=None))
    unknown = "01a2b3c4-0000-7000-8000-000000000000"
    answers = told(
        client,
        {"id": unknown, "late": 1},
        {"id": purged, "late": 1},
        {"loan_id": "A", "date": day(1), "late": 1},
        {"id": later, "date": day(31), "late": 1},
        {"id": named, "loan_id": "D", "late": 1},
    )
    wrong = [tuple(each["errors"][0].values()) for each in answers]
    horizon = f"a loan with a decision {FIRST} to {LAST} days before {day(1)}"
    assert wrong == [
        ("id", "the id of a decision", unknown),
        ("id", "a decision that was not purged", purged),
        ("loan_id", horizon, "'A'"),
        ("date", f"the day of the decision, {day(30)}, or a later day", day(31)),
        ("loan_id", "the loan_id of the decision, 'C'", "'D'"),
    ]
    assert ledger.rows() == 0


def test_a_decision_stands_once_in_a_request_by_whatever_name(
    client: FlaskClient, ledger: Ledger
) -> None:
    (a,) = ledger.decide(("A", 30))
    by_loan = {"loan_id": "A", "date": day(1), "late": 0}
    # What is wrong does not count.
    answers = told(client, {"id": a, "late": "?"}, by_loan, {"id": a, "late": 1}, by_loan)
    assert answers[1] == {"id": a, "late": False, "status": "stored"}
    again = {"expected": "one outcome for each decision", "given": f"{a} again, as in row 1"}
    assert answers[2:] == [{"errors": [{"field": name} | again]} for name in ("id", "loan_id")]
    assert ledger.history(a) == [(False, date.fromisoformat(day(1)), "")]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"[]", 422, "expected an object"),
        (b"{}", 422, "outcomes: expected a list, given nothing"),
        (b'{"outcomes": {}}', 422, "outcomes: expected a list, given {}"),
        (b'{"outcomes": [], "x": 1}', 422, "x: expected only outcomes, given 1"),
        (b'{"outcomes": [], "outcomes": []}', 422, "outcomes: expected each name once"),
        (b'{"outcomes": [{}, {"late": 1, "late": 0}]}', 422, "loan 1, late: expected each name"),
        (b"{", 400, "can't be read as JSON"),
        (b'{"outcomes": [' + b"{}," * 10_000 + b"{}]}", 413, "given 10,001"),
        (b" " * 5_000_001, 413, "larger than 5 MB"),
    ],
)
def test_a_request_that_holds_no_outcomes_is_a_problem(
    client: FlaskClient, body: bytes, status: int, detail: str
) -> None:
    answer = client.post("/v1/outcomes", data=body, content_type="application/json")
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert detail in answer.json["detail"]


def test_parameters_another_type_and_no_champion_are_problems(
    client: FlaskClient, tmp_path: Path
) -> None:
    body: dict[str, Any] = {"outcomes": []}
    assert client.post("/v1/outcomes?late=1", json=body).status_code == 400
    assert client.post("/v1/outcomes", data="x").status_code == 415
    assert told(client) == []
    empty = create_app(Settings(tmp_path / "empty" / "store"), on_loopback=True).test_client()
    answer = empty.post("/v1/outcomes", json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_the_caller_s_name_is_kept(
    client: FlaskClient, ledger: Ledger, run: Run, store: Store, tmp_path: Path
) -> None:
    token = run("token", "new", "servicing").stdout.strip()
    chosen = Settings(store.root, tmp_path / "tokens", ledger.url, seal=tmp_path / "seal")
    guarded = create_app(chosen).test_client()
    (a,) = ledger.decide(("A", 30))
    body = {"outcomes": [{"id": a, "late": True}]}
    assert guarded.post("/v1/outcomes", json=body).status_code == 401
    head = {"Authorization": f"Bearer {token}"}
    assert guarded.post("/v1/outcomes", json=body, headers=head).status_code == 200
    assert ledger.history(a) == [(True, None, "servicing")]


def test_while_the_ledger_can_not_write_a_request_gets_503_and_nothing_is_kept(
    client: FlaskClient, ledger: Ledger
) -> None:
    (a,) = ledger.decide(("A", 30))
    body = {"outcomes": [{"id": a, "late": True}]}
    with ledger.busy():
        answer = client.post("/v1/outcomes", json=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.content_type == "application/problem+json"
    assert ledger.rows() == 0
    assert client.post("/v1/outcomes", json=body).status_code == 200


def test_ten_thousand_are_one_request(client: FlaskClient, ledger: Ledger) -> None:
    made = ledger.decide(*((f"L{i}", 10 + i % 170) for i in range(10_000)))
    rows = [{"loan_id": f"L{i}", "date": day(i % 9), "late": i % 40 == 0} for i in range(10_000)]
    answers = told(client, *rows)
    assert [each["id"] for each in answers] == made
    assert [each["status"] for each in told(client, *rows)] == ["unchanged"] * 10_000


# Files


@pytest.mark.parametrize("name", ["told.csv", "told.csv.gz", "told.parquet", "told.jsonl"])
def test_a_file_of_each_kind_is_kept_and_twice_changes_nothing(
    run: Run, ledger: Ledger, tmp_path: Path, name: str
) -> None:
    a, b, _ = ledger.decide(("A", 40), ("B", 40), ("C", 40))
    seen = datetime.now(UTC).replace(tzinfo=None) if name.endswith("parquet") else day(0)
    rows: list[dict[str, Any]] = [
        {"loan_amnt": 5, "id": a, "loan_id": None, "date": None, "is_late": 1},
        {"loan_amnt": 5, "id": None, "loan_id": "B", "date": seen, "is_late": 0},
        {"loan_amnt": 5, "id": None, "loan_id": "C", "date": None, "is_late": 0},
    ]
    write(tmp_path / name, rows)
    first = run("outcomes", name, "--json", ledger=ledger.url)
    assert (first.returncode, counts(first)) == (1, (2, 0, 0, 1)), first.stderr
    assert json.loads(first.stdout)["problems"] == [
        {
            "row": 3,
            "field": "date",
            "expected": "the day on which the outcome was observed, such as 2026-11-25",
            "given": "nothing",
        }
    ]
    who = ledger.history(a)[0][2]
    assert who
    assert ledger.history(b) == [(False, date.fromisoformat(day(0)), who)]
    again = run("outcomes", name, "--json", ledger=ledger.url)
    assert counts(again) == (0, 2, 0, 1)
    assert ledger.rows() == 2
    rows[0]["is_late"] = 0
    write(tmp_path / name, rows[:2])
    corrected = run("outcomes", name, "--json", ledger=ledger.url)
    assert (corrected.returncode, counts(corrected)) == (0, (0, 1, 1, 0))
    assert [late for late, _, _ in ledger.history(a)] == [True, False]


def test_rows_are_numbered_on_across_transactions_and_files(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    made = ledger.decide(*((f"L{i}", 40) for i in range(4_500)))
    folder = tmp_path / "told"
    folder.mkdir()
    rows = [{"id": each, "late": "true"} for each in made]
    write(folder / "a.csv", rows)
    write(folder / "b.csv", [rows[0], {"id": made[1], "late": "x"}, rows[4_400]])
    done = run("outcomes", "told", ledger=ledger.url)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"row 4501, id: expected one outcome for each decision, given {made[0]} again, as in row 1",
        "row 4502, late: expected true (late) or false (on time), given 'x'",
        f"row 4503, id: expected one outcome for each decision, given {made[4_400]} again, "
        "as in row 4401",
        "told: 4,503 rows: 4,500 stored, 0 unchanged, 0 corrected, 3 refused",
    ]
    assert "peerloan: told: 3 rows were refused" in done.stderr
    assert ledger.rows() == 4_500


def test_rows_without_an_outcome_yet_are_passed_over_and_counted(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    a, b, c, d = ledger.decide(*((name, 30) for name in "ABCD"))
    lines = [f"{a},1", f"{b},", f"{c},NA", f"{d},late"]
    (tmp_path / "told.csv").write_text("\n".join(["id,is_late", *lines]))
    done = run("outcomes", "told.csv", ledger=ledger.url)
    assert done.stdout.splitlines() == [
        "row 4, is_late: expected 1 (late) or 0 (on time), given 'late'",
        "told.csv: 4 rows: 1 stored, 0 unchanged, 0 corrected, 1 refused, 2 without an outcome yet",
    ]
    (tmp_path / "told.csv").write_text("\n".join(["id,is_late", *lines[:3]]))
    done = run("outcomes", "told.csv", "--json", ledger=ledger.url)
    assert (done.returncode, json.loads(done.stdout)["without_outcome"]) == (0, 2)
    assert ledger.rows() == 1


def test_progress_follows_the_rows(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ledger.decide(*((f"L{i}", 40) for i in range(9_000)))
    write(tmp_path / "told.csv", [{"id": each, "late": "true"} for each in made])
    shown: list[float] = []

    @contextmanager
    def progress() -> Iterator[Callable[..., None]]:
        yield lambda what, done: shown.append(done) if "outcomes" in what else None

    monkeypatch.setattr("peerloan.cli.commands.outcomes.progress", progress)
    monkeypatch.setenv("PEERLOAN_LEDGER", ledger.url)
    monkeypatch.setenv("PEERLOAN_STORE", str(tmp_path / "store"))
    with suppress(SystemExit):
        main(["outcomes", str(tmp_path / "told.csv")])
    assert [round(done, 3) for done in shown] == [0.222, 0.444, 0.667, 0.889, 1.0, 1.0]


def test_of_many_wrong_rows_some_are_shown_and_json_has_all(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    write(tmp_path / "told.csv", [{"id": f"no {i}", "late": 1} for i in range(50)])
    done = run("outcomes", "told.csv", ledger=ledger.url)
    assert len(done.stdout.splitlines()) == 21
    assert "50 rows were refused (--json names every one)" in done.stderr
    listed = json.loads(run("outcomes", "told.csv", "--json", ledger=ledger.url).stdout)
    assert [each["row"] for each in listed["problems"]] == list(range(1, 51))


def test_a_row_with_too_many_cells_is_refused_too(run: Run, ledger: Ledger, tmp_path: Path) -> None:
    (a,) = ledger.decide(("A", 30))
    (tmp_path / "told.csv").write_bytes(b"id,late\n1,2,3\n\xff,1\n" + f"{a},0\n".encode())
    done = run("outcomes", "told.csv", "--json", ledger=ledger.url)
    assert counts(done) == (1, 0, 0, 2)
    wrong = [(each["row"], each["given"]) for each in json.loads(done.stdout)["problems"]]
    assert wrong == [(1, "3 cells"), (2, "b'\\xff'")]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (
            "id,islate",
            "a column late or is_late, which is missing (did you mean islate?)",
        ),
        ("loan_id,late", "expected a column id, or the columns loan_id and date"),
        ("loan_id,Date,late", "(did you mean Date?)"),
        ("id,late,is_late", "expected one column of late and is_late, got both"),
        ("id,late,probability", "so its column late is a decision"),
        ("id;loan_id;date;late", "separated by ';'"),
        ("Outcomes of March\nid,late", "got them in line 2: delete the lines above them"),
    ],
)
def test_a_table_that_tells_no_outcomes_is_refused(
    run: Run, tmp_path: Path, header: str, why: str
) -> None:
    (tmp_path / "told.csv").write_text(f"{header}\n{header}\n")
    done = run("outcomes", "told.csv")
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_ledger_the_command_says_what_to_run(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "told.csv", [{"id": "x", "late": 1}])
    done = run("outcomes", "told.csv")
    assert done.returncode == 1
    assert "contains no ledger yet; run: peerloan ledger upgrade" in done.stderr


def test_another_lender_s_label_id_and_horizon_are_those_of_its_definition(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "loan.toml").write_text(
        'model = "m"\n[label]\ncolumn = "Status"\nlate = "überfällig"\non_time = "gut"\n'
        '[roles]\nid = "Konto-Nr."\nhorizon = [10, 20]\n'
        '[[field]]\nname = "x"\nkind = "number"\nlabel = "X"\n',
        "utf-8",
    )
    early, late = ledger.decide(("K1", 25), ("K1", 15))
    rows = [
        {"Konto-Nr.": "K1", "date": day(0), "Status": "überfällig"},
        {"Konto-Nr.": "K1", "date": day(6), "Status": "gut"},
        {"Konto-Nr.": "K1", "date": day(16), "Status": "gut"},
        {"Konto-Nr.": "K1", "date": day(0), "Status": "1"},
    ]
    write(tmp_path / "told.csv", rows)
    done = run("outcomes", "told.csv", "--definition", "loan.toml", "--json", ledger=ledger.url)
    assert counts(done) == (2, 0, 0, 2), done.stderr
    assert [late for late, _, _ in ledger.history(late)] == [True]
    assert [late for late, _, _ in ledger.history(early)] == [False]
    wrong = [(each["row"], each["expected"]) for each in json.loads(done.stdout)["problems"]]
    assert wrong == [
        (3, f"a loan with a decision 10 to 20 days before {day(16)}"),
        (4, "'überfällig' (late) or 'gut' (on time)"),
    ]


def test_two_processes_at_once_keep_each_outcome_once(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    made = ledger.decide(*((f"L{i}", 40) for i in range(6_000)))
    write(tmp_path / "told.csv", [{"id": each, "late": i % 9 == 0} for i, each in enumerate(made)])
    environment = process_settings(tmp_path / "store") | {"PEERLOAN_LEDGER": ledger.url}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "peerloan", "outcomes", "told.csv", "--json"],
            cwd=tmp_path,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(each["stored"] for each in answers) == ledger.rows() == 6_000
    assert sum(each["unchanged"] for each in answers) == 6_000


@pytest.mark.longer
def test_a_command_that_was_stopped_by_the_ledger_may_be_run_again(
    run: Run, ledger: Ledger, tmp_path: Path
) -> None:
    (a,) = ledger.decide(("A", 30))
    write(tmp_path / "told.csv", [{"id": a, "late": 1}])
    with ledger.busy():
        done = run("outcomes", "told.csv", ledger=ledger.url)
    assert done.returncode == 1
    assert "stopped before row 1: " in done.stderr
    assert "Traceback" not in done.stderr
    assert counts(run("outcomes", "told.csv", "--json", ledger=ledger.url)) == (1, 0, 0, 0)


def test_a_recorder_whose_ledger_failed_has_kept_nothing(ledger: Ledger) -> None:
    (a,) = ledger.decide(("A", 30))
    recorder = OutcomeRecorder(ledger.database, default_definition(), "a")
    with ledger.busy(), pytest.raises(LedgerUnavailable):
        recorder.record([(0, {"id": a, "late": 1})])
    (answer,) = recorder.record([(0, {"id": a, "late": 1})])
    assert not isinstance(answer, list)


AGO = 100
REPORTS = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([True, False, "true", "0", 1, 0.0, "late", None]),
        st.one_of(st.none(), st.integers(-3, 120)),
    ),
    max_size=12,
)


@given(reports=REPORTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_reports_the_last_good_one_holds_and_repeating_it_adds_nothing(
    ledger: Ledger, reports: list[tuple[bool, Any, int | None]]
) -> None:
    loan_id = f"L{secrets.randbits(60)}"
    (made,) = ledger.decide((loan_id, AGO))
    definition = default_definition()
    last: dict[str, Any] | None = None
    changes: list[bool] = []
    for by_id, late, age in reports:
        row = {"late": late, "date": None if age is None else day(AGO - age)}
        row |= {"id": made} if by_id else {"loan_id": loan_id}
        (answer,) = OutcomeRecorder(ledger.database, definition, "a").record([(0, row)])
        timely = 0 <= age <= AGO if age is not None and by_id else by_id or age in range(1, AGO + 1)
        good = timely and late not in ("late", None)
        assert isinstance(answer, list) != good
        if not isinstance(answer, list):
            last = row
            said = late in (True, "true")
            if answer.status == "unchanged":
                assert changes[-1] == said
            else:
                changes.append(said)
        else:
            assert all(isinstance(each, Problem) for each in answer)
    assert [late for late, _, _ in ledger.history(made)] == changes
    if last is not None:
        rows = ledger.rows()
        for who, status, more in (("a", "unchanged", 0), ("b", "stored", 1), ("b", "unchanged", 1)):
            (again,) = OutcomeRecorder(ledger.database, definition, who).record([(0, last)])
            assert not isinstance(again, list)
            assert again.status == status
            assert again.late == changes[-1] == (last["late"] in (True, "true"))
            assert ledger.rows() == rows + more


def test_a_definition_whose_horizon_begins_at_once_counts_the_day_itself(ledger: Ledger) -> None:
    definition = parse_definition(
        'model = "m"\n[label]\ncolumn = "y"\nlate = true\non_time = false\n'
        '[roles]\nhorizon = [0, 0]\n[[field]]\nname = "x"\nkind = "number"\nlabel = "X"\n',
        "test",
    )
    ledger.decide(("A", 5))
    rows = [{"loan_id": "A", "date": day(ago), "y": "true"} for ago in (6, 4, 5)]
    answers = OutcomeRecorder(ledger.database, definition, "a").record(enumerate(rows))
    assert [isinstance(each, list) for each in answers] == [True, True, False]
