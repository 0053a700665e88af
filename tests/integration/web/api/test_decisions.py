"""Decisions are read as they were answered: by id, and in pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, func, insert, select, update

from helpers.apps import create_app
from helpers.probes import get_json
from helpers.stores import VersionOf
from peerloan.database import Database, tables
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.model import BANDS
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.uuid7 import first_at
from peerloan.web.services import services_of

DAY_MS = 86_400_000


def rows(database: Database) -> int:
    with database.reading() as connection:
        return int(
            connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one()
        )


def database_of(client: FlaskClient) -> Database:
    return services_of(client.application).database


def add(database: Database, folder: Path, made: list[tuple[int, str, int, str]]) -> list[bytes]:
    """Decisions of the past: day, version, band, loan."""
    chain = Chain(database, Seal(folder / "seal"))
    ids = []
    for number, (day, version, band, loan_id) in enumerate(made):
        moment = first_at(day * DAY_MS).int | 0x7 << 76 | 0x2 << 62 | number
        ids.append(moment.to_bytes(16, "big"))
        version_made = Version(version, "d" * 64, 0.05)
        values = ("api", "tests", "r" * 32, None, loan_id, '{"a": 1}', 0.5, 0.6, True, band)
        chain.append([Entry([Record(ids[-1], version_made, *values, "[]", None)])])
    chain.close()
    return ids


def test_a_decision_is_read_as_it_was_answered(
    client: FlaskClient, loan: dict[str, Any], database: Database
) -> None:
    sent = loan | {"loan_id": "L-1"}
    answered = client.post(
        "/v1/predictions?contributions=all",
        json=sent,
        headers={"X-Request-Id": "a-request-id", "Idempotency-Key": "k1"},
    ).json
    assert answered is not None
    base = answered.pop("base")
    contributions = answered.pop("contributions")
    assert base + sum(contributions.values()) == answered["margin"]
    kept = get_json(client, f"/v1/predictions/{answered['id']}")
    assert kept.items() >= answered.items()
    more = {name: kept[name] for name in kept if name not in answered}
    assert more.pop("time").endswith("Z")
    assert more == {
        "inputs": sent,
        "source": "api",
        "caller": "",
        "request_id": "a-request-id",
        "idempotency_key": "k1",
        "challenger": None,
        "outcomes": [],
    }
    assert rows(database) == 1


@pytest.mark.parametrize("shape", ["list", "columns"])
def test_many_loans_are_kept_each_as_it_was_given(
    client: FlaskClient, loan: dict[str, Any], shape: str
) -> None:
    loans = [loan | {"loan_id": f"L-{i}", "dti": 10 + i} for i in range(3)]
    body: object = loans
    if shape == "columns":
        body = {name: [each[name] for each in loans] for name in loans[0]}
    answered = client.post("/v1/predictions", json=body).json
    assert answered is not None
    for sent, prediction in zip(loans, answered["predictions"], strict=True):
        kept = get_json(client, f"/v1/predictions/{prediction['id']}")
        assert kept.items() >= prediction.items()
        assert kept["inputs"] == sent
    listed = [each["id"] for each in get_json(client, "/v1/predictions")["predictions"]]
    assert listed == [each["id"] for each in reversed(answered["predictions"])]


def test_reasons_are_kept_also_where_the_request_asked_for_none(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    answered = client.post("/v1/predictions?reasons=none", json=loan).json
    assert answered is not None
    assert "reasons" not in answered
    assert get_json(client, f"/v1/predictions/{answered['id']}")["reasons"]


def test_what_if_is_no_decision(
    client: FlaskClient, loan: dict[str, Any], database: Database
) -> None:
    head = {"Idempotency-Key": "k1"}
    assert client.post("/v1/predictions?what_if=true", json=loan, headers=head).status_code == 200
    assert client.post("/v1/predictions", json=loan | {"dti": -1}).status_code == 422
    assert rows(database) == 0


def test_what_became_of_a_loan_stands_with_its_decision(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    answers: list[Any] = [client.post("/v1/predictions", json=loan).json for _ in range(2)]
    made = [each["id"] for each in answers]
    today = str(datetime.now(UTC).date())
    for outcome in ({"late": False}, {"late": True, "date": today}):
        told = {"outcomes": [outcome | {"id": made[0]}]}
        assert client.post("/v1/outcomes", json=told).status_code == 200
    listed = get_json(client, "/v1/predictions")["predictions"]
    assert [each["id"] for each in listed] == made[::-1]
    assert listed[0]["outcomes"] == []
    outcomes = listed[1]["outcomes"]
    assert get_json(client, f"/v1/predictions/{made[0]}")["outcomes"] == outcomes
    assert all(each.pop("recorded").endswith("Z") for each in outcomes)
    assert outcomes == [
        {"late": True, "date": today, "caller": ""},
        {"late": False, "date": None, "caller": ""},
    ]


def test_pages_of_a_loan_a_time_a_version_and_a_band(
    client: FlaskClient, database: Database, tmp_path: Path
) -> None:
    made = [(20_000 + i, f"v{i % 3}", i % len(BANDS), f"L{i % 5}") for i in range(60)]
    ids = add(database, tmp_path, made)

    def listed(**query: object) -> list[int]:
        found, cursor = [], None
        while True:
            page = get_json(
                client,
                "/v1/predictions",
                limit=7,
                **query,
                **({"cursor": cursor} if cursor else {}),
            )
            found += [
                ids.index(bytes.fromhex(e["id"].replace("-", ""))) for e in page["predictions"]
            ]
            cursor = page["next"]
            if cursor is None:
                return found
            assert len(page["predictions"]) == 7

    newest = range(59, -1, -1)
    assert listed() == [*newest]
    assert listed(loan_id="L2") == [i for i in newest if i % 5 == 2]
    assert listed(loan_id="L2", band="low") == [i for i in newest if i % 5 == 2 and i % 4 == 0]
    assert listed(version="v1") == [i for i in newest if i % 3 == 1]
    assert listed(band="very high") == [i for i in newest if i % 4 == 3]
    assert listed(version="v1", band="high") == [i for i in newest if i % 3 == 1 and i % 4 == 2]
    # Day 20,000 is 2024-10-04.
    assert listed(since="2024-10-14", until="2024-10-16T00:00:00+00:00") == [11, 10]
    assert listed(since="2024-10-14", until="2024-10-20", version="v0") == [15, 12]
    assert listed(version="v9") == listed(loan_id="L9") == []


def test_pages_stay_right_however_many_versions_decided(
    client: FlaskClient, database: Database, tmp_path: Path
) -> None:
    """SQLite joins 500 selects at most, and a statement has room for so many parameters only."""
    made = [(20_000 + i, f"v{i % 3}", i % len(BANDS), f"L{i % 5}") for i in range(40)]
    ids = add(database, tmp_path, made)
    others = [{"version": f"w{i}", "digest": "d" * 64, "threshold": 0.05} for i in range(700)]
    # As many as a version whose folder was copied from store to store, each time another digest.
    others += [{"version": "v1", "digest": f"{i:064}", "threshold": 0.05} for i in range(700)]
    with database.writing() as connection:
        connection.execute(insert(tables.versions), others)
    # The last of the versions decides, too: before, between and after the others.
    made += [(20_000 + i, "w699", i % len(BANDS), f"L{i % 5}") for i in (-1, 10, 60)]
    ids += add(database, tmp_path, made[40:])
    parameters: list[int] = []

    @event.listens_for(database_of(client).engine, "before_cursor_execute")
    def count(_c: object, _cursor: object, _sql: str, given: Any, _x: object, _m: object) -> None:
        parameters.append(len(given))

    def listed(**query: object) -> list[int]:
        found: list[int] = []
        cursor: dict[str, str] = {}
        while True:
            page = get_json(client, "/v1/predictions", limit=7, **query, **cursor)
            found += [ids.index(UUID(each["id"]).bytes) for each in page["predictions"]]
            if page["next"] is None:
                return found
            assert len(page["predictions"]) == 7
            cursor = {"cursor": page["next"]}

    newest = sorted(range(43), key=lambda i: ids[i], reverse=True)
    assert listed(band="high") == [i for i in newest if made[i][2] == 2]
    assert listed(version="v1") == [i for i in newest if made[i][1] == "v1"]
    assert listed(version="w699") == [42, 41, 40]
    assert listed(loan_id="L0", band="low") == [
        i for i in newest if (made[i][2], made[i][3]) == (0, "L0")
    ]
    assert listed(loan_id="L0", version="w699") == [
        i for i in newest if (made[i][1], made[i][3]) == ("w699", "L0")
    ]
    assert max(parameters) < 1_000


def test_a_purged_decision_is_gone(client: FlaskClient, database: Database, tmp_path: Path) -> None:
    add(database, tmp_path, [(20_000, "v1", 0, "L1")])
    decision = get_json(client, "/v1/predictions")["predictions"][0]["id"]
    with database.writing() as connection:
        connection.execute(update(tables.decisions).values(inputs=None, band=None, loan_id=None))
    answer = client.get(f"/v1/predictions/{decision}")
    assert (answer.status_code, answer.json and answer.json["title"]) == (410, "Purged")
    assert get_json(client, "/v1/predictions") == {"predictions": [], "next": None}


@pytest.mark.parametrize("decision", ["x", "01a213ae-6fdd-7ff7-8d51-9132d5fb6b72", "0" * 36])
def test_an_unknown_decision_is_404(client: FlaskClient, decision: str) -> None:
    assert client.get(f"/v1/predictions/{decision}").status_code == 404


@pytest.mark.parametrize(
    ("query", "field", "expected"),
    [
        ("limit=0", "?limit", "a whole number from 1 to 1,000"),
        ("limit=1001", "?limit", "a whole number from 1 to 1,000"),
        ("limit=x", "?limit", "a whole number from 1 to 1,000"),
        ("band=lowest", "?band", "one of low, medium, high, very high"),
        ("since=yesterday", "?since", "a day or a moment"),
        ("until=2026-01-01T00:00:00", "?until", "a day or a moment"),
        ("cursor=x", "?cursor", "the value of `next` in the page before"),
        ("loan_id=", "?loan_id", "text"),
        ("loan=1", "?loan", "one of the parameters loan_id"),
        ("band=low&band=high", "?band", "one value"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: FlaskClient, query: str, field: str, expected: str
) -> None:
    answer = client.get(f"/v1/predictions?{query}")
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["errors"][0]["field"] == field
    assert answer.json["errors"][0]["expected"].startswith(expected)


def test_a_ledger_that_can_t_be_read_is_a_503(
    store: Store, version_of: VersionOf, tmp_path: Path, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    nowhere = Settings(store.root, tmp_path / "tokens", "postgresql://peerloan@127.0.0.1:1/x")
    client = create_app(nowhere, on_loopback=True).test_client()
    for answer in (client.get("/v1/predictions"), client.post("/v1/predictions", json=loan)):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "2"
        assert answer.json is not None
        assert answer.json["title"] == "Ledger Unavailable"
    assert client.post("/v1/predictions?what_if=true", json=loan).status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json is not None
    assert ready.json["ledger"] == "unavailable"


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", "1e400"])
def test_what_is_only_nearly_json_in_a_field_of_another_version_is_read_as_json(
    client: FlaskClient, loan: dict[str, Any], monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setattr(Store, "known_fields", lambda *_: frozenset(["months_on_book"]))
    services_of(client.application).serving_models.refresh()
    body = json.dumps(loan | {"months_on_book": "odd"}).replace('"odd"', odd)
    for content in (body, f"[{body}]"):
        answer = client.post("/v1/predictions", data=content, content_type="application/json")
        assert answer.status_code == 200, answer.text
    page = client.get("/v1/predictions")
    found = msgspec.json.decode(page.data)["predictions"]  # JSON, and nothing but JSON
    assert [each["inputs"] for each in found] == [loan | {"months_on_book": None}] * 2
    one = client.get(f"/v1/predictions/{found[0]['id']}")
    assert msgspec.json.decode(one.data)["inputs"]["months_on_book"] is None
