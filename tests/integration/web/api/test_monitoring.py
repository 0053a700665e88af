"""Events and figures through the front doors: the API and the command line."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from flask.testing import FlaskClient
from sqlalchemy import delete, insert, select

from helpers.apps import create_app
from helpers.commands import Run
from helpers.past import DAY_MS, Past, loans_of
from helpers.paths import ROOT
from helpers.probes import get_json
from helpers.stores import VersionOf
from peerloan.book import open_writer
from peerloan.database import Database, tables
from peerloan.monitoring.alerts.delivery import signature
from peerloan.monitoring.alerts.events import BEGAN, store_event
from peerloan.monitoring.config import MonitoringConfig
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.settings import Settings
from peerloan.worker.monitoring_round import Monitor

EPOCH = date(1970, 1, 1)


@pytest.fixture
def champion(store: Store, version_of: VersionOf) -> str:
    return store.promote(version_of("additive")).champion or ""


@pytest.fixture
def client(store: Store, champion: str, database: Database, tmp_path: Path) -> FlaskClient:
    url = database.url.render_as_string(hide_password=False)
    chosen = Settings(store.root, tmp_path / "tokens", url)
    return create_app(chosen, on_loopback=True).test_client()


def tell(database: Database, about: str = "int_rate") -> str:
    data = {"rule": "feature-drift", "level": "act", "about": about, "value": 0.3, "limit": 0.25}
    with database.writing() as connection:
        return store_event(connection, BEGAN, "additive-1", data, 1_700_000_000_000, ())


def decided(database: Database, *names: str) -> list[int]:
    """Versions that decided, by their numbers."""
    rows = [{"version": name, "digest": "d" * 64, "threshold": 0.05} for name in names]
    with database.writing() as connection:
        made = insert(tables.versions).returning(tables.versions.c.number)
        return [connection.execute(made.values(row)).scalar_one() for row in rows]


def keep(database: Database, number: int, days: range, kind: str = "day") -> None:
    rows = [
        {"version": number, "kind": kind, "day": day, "figures": json.dumps({"window": day})}
        for day in days
    ]
    with database.writing() as connection:
        connection.execute(insert(tables.figures), rows)


def as_described(client: FlaskClient, path: str, body: Any, method: str = "get") -> None:
    """Check an answer against the API's own description."""
    document: Any = client.get("/openapi.json").json
    described = document["paths"][path][method]["responses"]["200"]
    whole = described["content"]["application/json"]["schema"]
    whole = {**whole, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(body)


def today() -> int:
    return (datetime.now(UTC).date() - EPOCH).days


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_what_a_watcher_says_is_read_and_taken_note_of(
    client: FlaskClient, database: Database, store: Store, champion: str, run: Run, tmp_path: Path
) -> None:
    bundle = store.load(champion)
    past = Past(database, tmp_path / "peerloan-seal", bundle)
    watcher = Monitor(database, store, MonitoringConfig(window_days=2))
    loans: dict[str, Any] = {}
    for scenario in ("calm", "rate-shock"):
        with open_writer(tmp_path / f"{scenario}.csv", SCHEMA) as writer:
            for batch in batches(1_000, 3, scenario):
                writer.write(batch)
        loans[scenario] = itertools.cycle(list(loans_of(tmp_path / f"{scenario}.csv", bundle)))
    first = today() - 40
    for i, scenario in enumerate(("calm", "calm", "rate-shock", "rate-shock")):
        some = list(itertools.islice(loans[scenario], 300))
        start = (first + i) * DAY_MS
        made = past.decide([loan for loan, _ in some], start, start + DAY_MS)
        past.report_outcomes(made, [label for _, label in some])
        done = watcher.round(start + DAY_MS)
    past.close()

    said = get_json(client, "/v1/drift")
    as_described(client, "/v1/drift", said)
    days = [EPOCH + timedelta(first + i) for i in range(4)]
    assert [each["day"] for each in said["figures"]][-4:] == [str(day) for day in days]
    newest = said["figures"][-1]
    assert newest["model"] == champion
    assert newest["window"]["loans"] == done.figures[champion].loans == 600
    assert newest["realised"]["loans"] > 0
    assert {"rule": "feature-drift", "about": "int_rate", "level": "act"}.items() <= next(
        each for each in said["alarms"] if each["about"] == "int_rate"
    ).items()
    months = get_json(client, "/v1/drift", kind="month")["figures"]
    assert {each["day"][-3:] for each in months} == {"-01"}
    assert sum(each["window"]["loans"] for each in months) == 1_200

    told = get_json(client, "/v1/events")
    as_described(client, "/v1/events", told)
    event = next(each["event"] for each in told["events"] if "int_rate" in str(each))
    assert (event["subject"], event["data"]["model"]) == (champion, champion)
    listed = run("events", "list")
    (line,) = (each for each in listed.stdout.splitlines() if event["id"] in each)
    assert "an alert began" in line
    assert champion in line
    assert "feature-drift of int_rate" in line
    assert f"{event['data']['value']:.3f} ({event['data']['limit']:.3f})" in line
    noted = run("events", "acknowledge", event["id"], "--why", "rates were raised")
    assert noted.returncode == 0, noted.stderr
    again = run("events", "acknowledge", event["id"], "--why", "me too")
    assert again.returncode == 1
    assert "is already acknowledged, by" in again.stderr
    everything = json.loads(run("events", "list", "--json").stdout)
    assert everything == get_json(client, "/v1/events")["events"]
    (mine,) = (each for each in everything if each["event"] == event)
    assert mine["acknowledged"]["why"] == "rates were raised"
    still_open = json.loads(run("events", "list", "--open", "--json").stdout)
    assert still_open == [each for each in everything if each != mine]
    assert len(json.loads(run("events", "list", "--limit", "1", "--json").stdout)) == 1


def test_a_year_of_days_is_read_the_oldest_first(
    client: FlaskClient, database: Database, champion: str
) -> None:
    assert get_json(client, "/v1/drift") == {"figures": [], "alarms": []}
    own, another = decided(database, champion, "another-1")
    now = today()
    keep(database, own, range(now - 400, now + 1))
    keep(database, another, range(100, 110))
    keep(database, another, range(59, 60), "month")
    alarm = {"version": own, "rule": "volume-drop", "about": "loans", "level": "watch"}
    with database.writing() as connection:
        connection.execute(insert(tables.alarms).values(since_ms=1_700_000_000_000, **alarm))
    said = get_json(client, "/v1/drift")
    expected = [str(EPOCH + timedelta(now - i)) for i in range(365, -1, -1)]
    assert [each["day"] for each in said["figures"]] == expected
    assert said["figures"][-1] == {"model": champion, "day": expected[-1], "window": now}
    since = "2023-11-14T22:13:20.000Z"
    assert said["alarms"] == [
        {"rule": "volume-drop", "about": "loans", "level": "watch", "since": since}
    ]

    def days(**query: str) -> list[int]:
        found = get_json(client, "/v1/drift", model="another-1", **query)
        assert found["alarms"] == []
        return [each["window"] for each in found["figures"]]

    assert days() == []
    assert days(since="1970-01-01") == list(range(100, 110))
    assert days(since="1970-04-15", until="1970-04-17") == [104, 105]
    assert days(until="1970-04-12") == [100]
    assert days(kind="month", until="1971-01-01") == [59]
    assert days(since="9999-12-31") == days(since="1970-04-17", until="1970-04-15") == []


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("drift?model=nobody", 404, "there is no version 'nobody'"),
        ("drift?kind=year", 400, "?kind: expected one of day, month, given 'year'"),
        ("drift?since=2026-02-30", 400, "?since: expected a day (2026-11-25)"),
        ("drift?until=20260131", 400, "?until: expected a day"),
        ("drift?since=2025-01-01&until=2026-01-03", 400, "at most 366 days after since"),
        ("drift?source=api", 400, "?source: expected one of the parameters model, kind"),
        ("events?open=1", 400, "?open: expected one of true, false"),
        ("events?limit=0", 400, "?limit: expected a whole number from 1 to 1,000"),
        ("events?limit=1&limit=2", 400, "?limit: expected one value"),
        ("events?cursor=x", 400, "?cursor: expected the value of `next` in the page before"),
    ],
)
@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_wrong_parameters_are_named(
    client: FlaskClient, path: str, status: int, detail: str
) -> None:
    answer = client.get(f"/v1/{path}")
    assert answer.status_code == status, answer.text
    assert answer.json is not None
    assert detail in answer.json["detail"]


def test_events_come_in_pages_and_the_first_who_takes_note_stands(
    store: Store, champion: str, database: Database, run: Run, tmp_path: Path
) -> None:
    made = [tell(database, f"feature {i}") for i in range(5)][::-1]
    token = run("token", "new", "anna").stdout.strip()
    url = database.url.render_as_string(hide_password=False)
    client = create_app(Settings(store.root, tmp_path / "tokens", url)).test_client()
    path = f"/v1/events/{made[1]}/acknowledge"
    assert client.post(path, json={"why": "seen"}).status_code == 401
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"

    def pages(**query: str) -> list[list[str]]:
        found, cursor = [], ""
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = get_json(client, "/v1/events", limit=2, **query, **more)
            found.append([each["event"]["id"] for each in page["events"]])
            if not (cursor := page["next"]):
                return found

    assert pages() == [made[:2], made[2:4], made[4:]]
    noted = client.post(path.replace(made[1], made[1].upper()), json={"why": "seen"})
    assert noted.status_code == 200, noted.text
    body: Any = noted.json
    as_described(client, "/v1/events/{event}/acknowledge", body, "post")
    assert body["event"]["id"] == made[1]
    assert (body["acknowledged"]["who"], body["acknowledged"]["why"]) == ("anna", "seen")
    again = client.post(path, json={"why": "me too"})
    assert again.status_code == 409
    assert again.json is not None
    assert again.json["detail"] == f"{made[1]}: is already acknowledged, by anna"
    assert pages(open="true") == [[made[0], made[2]], made[3:]]
    assert pages(open="false") == pages()


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_what_can_not_be_said_of_an_event_is_refused(
    client: FlaskClient, database: Database, run: Run
) -> None:
    path = f"/v1/events/{tell(database)}/acknowledge"
    for body, status, detail in (
        ([], 422, "expected an object"),
        ({}, 422, "why: expected text of 1 to 1,000 characters"),
        ({"why": ""}, 422, "given ''"),
        ({"why": "a\x00"}, 422, "without control characters"),
        ({"why": "a" * 1_001}, 422, "why: expected text of 1 to 1,000"),
        ({"why": "a", "who": "b"}, 422, "who: expected only why"),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, detail in answer.text) == (status, True), answer.text
    assert client.post(path, data="why").status_code == 415
    assert client.post(f"{path}?a=1", json={"why": "a"}).status_code == 400
    for unknown in ("nothing", "01a2b3c4-0000-7000-8000-000000000000"):
        answer = client.post(f"/v1/events/{unknown}/acknowledge", json={"why": "a"})
        assert (answer.status_code, "there is no event" in answer.text) == (404, True)
        done = run("events", "acknowledge", unknown, "--why", "a")
        assert (done.returncode, f"{unknown}: no such event" in done.stderr) == (1, True)
    assert run("events", "acknowledge", unknown, "--why", "").returncode == 2
    with database.reading() as connection:
        assert connection.execute(select(tables.events.c.acknowledged_ms)).scalars().all() == [None]
    # Where nobody needs a token, callers have no name.
    assert client.post(path, json={"why": "a"}).status_code == 200
    assert "is already acknowledged, by somebody" in client.post(path, json={"why": "a"}).text


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_without_tables_there_is_503_and_the_command_says_what_to_run(
    client: FlaskClient, database: Database, run: Run
) -> None:
    assert run("events", "list").stderr == "no events\n"
    with database.writing() as connection:
        for table in (tables.events, tables.figures):
            table.drop(connection)
        connection.execute(delete(tables.migrations))
    decided(database, "any-1")
    for answer in (
        client.get("/v1/events"),
        client.get("/v1/drift?model=any-1"),
        client.post(f"/v1/events/{'0' * 32}/acknowledge", json={"why": "a"}),
    ):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "no such table" not in answer.text
    done = run("events", "list")
    assert done.returncode == 1
    assert "run: peerloan ledger upgrade" in done.stderr


def test_a_receiver_verifies_as_the_docs_say() -> None:
    page = (ROOT / "docs/monitoring.md").read_text("utf-8")
    section = page.split("\n## Events\n")[1].split("\n## ")[0]
    code, event, config = (
        re.findall(rf"```{kind}\n(.*?)```", section, re.S)[0] for kind in ("python", "json", "toml")
    )
    told = msgspec.toml.decode(config, type=MonitoringConfig).tell
    assert told.channels == ["log", "webhook", "command"]
    named: dict[str, Any] = {}
    exec(code, named)  # the docs' own lines
    secret, body = b"a secret that nobody guesses", event.encode()
    event_id, moment = json.loads(event)["id"], "1700000000"
    signed = signature(secret, event_id, moment, body)
    head = {"webhook-id": event_id, "webhook-timestamp": moment, "webhook-signature": signed}
    verify = named["is_from_peerloan"]
    assert verify(secret, head, body, now=1_700_000_100)
    assert not verify(secret, head, body + b" ", now=1_700_000_100)
    assert not verify(secret, head | {"webhook-id": "another"}, body, now=1_700_000_100)
    assert not verify(secret, head, body, now=1_700_001_000)
    several = head | {"webhook-signature": f"v1,other {signed}"}
    assert verify(secret, several, body, now=1_700_000_100)
