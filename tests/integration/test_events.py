"""Events: kept in the ledger, told at least once to whoever is to know, acknowledged by name."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select

from peerloan.ledger import Database
from peerloan.ledger.schema import deliveries, figures, versions
from peerloan.model import Store
from peerloan.monitoring import delivery
from peerloan.monitoring.delivery import deliver_due
from peerloan.monitoring.events import (
    ALARM_BEGAN,
    AlreadyAcknowledged,
    UnknownEvent,
    Wanted,
    acknowledge,
    page,
    put,
)
from peerloan.monitoring.plan import Tell, Webhook
from peerloan.service import create_app
from peerloan.settings import Settings

Run = Callable[..., subprocess.CompletedProcess[str]]
NOW = 1_800_000_000_000
HOUR = 3_600_000
SECRET = b"a secret of more than twenty-four bytes"
DATA = {"rule": "feature-drift", "about": "int_rate", "level": "act", "figure": 0.31}


class Receiver:
    """A web server that answers with these statuses, and then with 200; what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        answers = iter(statuses)
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(next(answers, 200))
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def start(*statuses: int) -> Receiver:
        started.append(Receiver(*statuses))
        return started[-1]

    yield start
    for each in started:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def database(ledger_url: str) -> Database:
    made = Database(ledger_url)
    made.upgrade()
    return made


def webhook(tmp_path: Path, url: str) -> Tell:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    return Tell(log=False, webhook=Webhook(url, str(tmp_path / "secret")))


def keep(database: Database, tell: Tell, subject: str = "additive-1", time_ms: int = NOW) -> str:
    with database.writing() as connection:
        return put(connection, ALARM_BEGAN, subject, DATA, time_ms, tell.channels)


def states(database: Database) -> list[tuple[str, int, str | None]]:
    every = [told for event in page(database, Wanted(), 10) for told in event.told]
    return [(each.state, each.attempts, each.fault) for each in every]


def test_a_webhook_that_fails_is_told_again_with_the_same_signed_event(
    database: Database, tmp_path: Path, receiver: Callable[..., Receiver]
) -> None:
    there = receiver(500, 302)
    tell = webhook(tmp_path, f"http://{there.address}/events")
    made = keep(database, tell)
    assert deliver_due(database, tell, NOW) == 0
    assert states(database) == [("waiting", 1, "it answered 500")]
    assert deliver_due(database, tell, NOW) == 0
    assert len(there.got) == 1
    assert deliver_due(database, tell, NOW + HOUR) == 0
    assert states(database) == [("waiting", 2, "it answered 302")]
    assert deliver_due(database, tell, NOW + 3 * HOUR) == 1
    assert states(database) == [("told", 3, None)]
    assert deliver_due(database, tell, NOW + 9 * HOUR) == 0
    assert len(there.got) == 3
    for head, body in there.got:
        signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        assert head["webhook-signature"] == f"v1,{expected}"
        assert head["content-type"] == "application/cloudevents+json; charset=utf-8"
        event = json.loads(body)
        assert event["id"] == head["webhook-id"] == made
        assert (event["specversion"], event["type"]) == ("1.0", ALARM_BEGAN)
        assert (event["source"], event["subject"]) == ("/peerloan/monitor", "additive-1")
        assert (event["time"], event["data"]) == ("2027-01-15T08:00:00Z", DATA)


def test_who_was_stopped_before_it_was_kept_tells_it_again_and_no_other(
    database: Database,
    tmp_path: Path,
    receiver: Callable[..., Receiver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = receiver()
    tell = webhook(tmp_path, f"http://{there.address}")
    first, second = keep(database, tell), keep(database, tell)
    original = delivery._keep
    calls = iter([original])

    def stopped(*arguments: Any, **named: Any) -> None:
        next(calls, _stop)(*arguments, **named)

    monkeypatch.setattr(delivery, "_keep", stopped)
    with pytest.raises(KeyboardInterrupt):
        deliver_due(database, tell, NOW)
    monkeypatch.undo()
    assert deliver_due(database, tell, NOW) == 1
    assert [head["webhook-id"] for head, _ in there.got] == [first, second, second]


def _stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_one_channel_s_failure_holds_up_no_other(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "told.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(sys.stdin.read())\n"
    )
    command = (sys.executable, str(tmp_path / "told.py"), str(tmp_path / "event.json"))
    (tmp_path / "secret").write_bytes(SECRET)
    away = Webhook("http://127.0.0.1:9/hidden", str(tmp_path / "secret"))
    tell = Tell(log=True, webhook=away, command=command)
    made = keep(database, tell)
    with caplog.at_level(logging.INFO):
        assert deliver_due(database, tell, NOW) == 2
    assert json.loads((tmp_path / "event.json").read_text())["id"] == made
    assert ALARM_BEGAN in caplog.text
    assert '"feature-drift"' in caplog.text
    assert states(database) == [
        *(("told", 1, None), ("told", 1, None)),
        ("waiting", 1, "Connection refused"),
    ]
    assert "hidden" not in caplog.text
    assert SECRET.decode() not in caplog.text


def test_what_is_not_heard_for_seven_days_is_given_up_and_what_nobody_awaits_is_dropped(
    database: Database,
) -> None:
    tell = Tell(log=False, command=(sys.executable, "-c", "raise SystemExit(3)"))
    keep(database, tell)
    deliver_due(database, tell, NOW)
    assert states(database) == [("waiting", 1, "its exit code was 3")]
    deliver_due(database, tell, NOW + 7 * 24 * HOUR)
    assert states(database) == [("given up", 2, "given up: its exit code was 3")]
    keep(database, tell)
    deliver_due(database, Tell(), NOW)
    state, attempts, fault = states(database)[0]
    assert (state, attempts) == ("given up", 0)
    assert str(fault).startswith("dropped")
    with database.reading() as connection:
        assert set(connection.execute(select(deliveries.c.next_ms)).scalars()) == {None}


def test_events_are_read_by_page_and_acknowledged_once(database: Database) -> None:
    ids = [keep(database, Tell(), f"v-{i % 2}", NOW + i) for i in range(4)]
    newest = page(database, Wanted(), 3)
    assert [each.id for each in newest] == ids[:0:-1]
    assert [each.id for each in page(database, Wanted(), 3, newest[-1].number)] == ids[:1]
    assert [each.id for each in page(database, Wanted(version="v-1"), 9)] == [ids[3], ids[1]]
    assert [each.id for each in page(database, Wanted(since_ms=NOW + 3), 9)] == [ids[3]]
    acknowledge(database, ids[3], "ann", "known")
    with pytest.raises(AlreadyAcknowledged, match="by ann"):
        acknowledge(database, ids[3], "ben", "too")
    with pytest.raises(UnknownEvent):
        acknowledge(database, "nothing", "ben", "too")
    assert [each.id for each in page(database, Wanted(is_open=True), 9)] == ids[2::-1]
    held = page(database, Wanted(), 1)[0].acknowledged
    assert held is not None
    assert (held.who, held.why) == ("ann", "known")


def test_the_command_lists_and_acknowledges(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}"
    database = Database(url)
    database.upgrade()
    first, second = keep(database, Tell()), keep(database, Tell())
    done = run("events", "acknowledge", first, "--why", "known", ledger=url)
    assert done.returncode == 0, done.stderr
    again = run("events", "acknowledge", first, "--why", "too", ledger=url)
    assert again.returncode == 1
    assert "was acknowledged before, by " in again.stderr
    listed = run("events", "list", "--open", "--since", "2027-01-15", "--json", ledger=url)
    (shown,) = json.loads(listed.stdout)
    assert shown["event"]["id"] == second
    assert shown["told"] == [{"channel": "log", "state": "waiting", "fault": None}]


@pytest.fixture
def client(
    store: Store, version_of: Callable[[str], str], database: Database, tmp_path: Path
) -> FlaskClient:
    store.promote(version_of("additive"))
    url = database.url.render_as_string(hide_password=False)
    return create_app(
        Settings(store.root, ledger=url, seal=tmp_path / "seal"), on_loopback=True
    ).test_client()


def valid(client: FlaskClient, path: str, template: str, status: int = 200, **named: Any) -> Any:
    """An answer that is as the API's own description says."""
    method = "post" if "json" in named else "get"
    answer = client.open(path, method=method.upper(), **named)
    assert answer.status_code == status, answer.text
    document: Any = client.get("/openapi.json").json
    described = document["paths"][template][method]["responses"][str(status)]
    (content,) = described["content"].values()
    schema = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json)
    return answer.json


def test_the_api_pages_and_acknowledges(client: FlaskClient, database: Database) -> None:
    first, second = keep(database, Tell()), keep(database, Tell(), "v-2")
    found = valid(client, "/v1/events?limit=1", "/v1/events")
    assert found["events"][0]["event"]["id"] == second
    found = valid(client, f"/v1/events?limit=1&cursor={found['next']}", "/v1/events")
    assert [each["event"]["id"] for each in found["events"]] == [first]
    assert found["next"] is None
    one, template = f"/v1/events/{first}/acknowledge", "/v1/events/{event}/acknowledge"
    assert valid(client, one, template, json={"why": "known"})["why"] == "known"
    again = valid(client, one, template, 409, json={"why": "too"})
    assert "by somebody without a name" in again["detail"]
    valid(client, "/v1/events/x/acknowledge", template, 404, json={"why": "known"})
    valid(client, one, template, 422, json={"why": ""})
    found = valid(client, "/v1/events?open=true&version=v-2&since=2027-01-15", "/v1/events")
    assert [each["event"]["subject"] for each in found["events"]] == ["v-2"]
    wrong = valid(client, "/v1/events?open=1&limit=0&cursor=x&until=1", "/v1/events", 400)
    assert {each["field"] for each in wrong["errors"]} == {"?open", "?limit", "?cursor", "?until"}


def test_the_api_answers_the_history_of_drift(
    client: FlaskClient, database: Database, version_of: Callable[[str], str]
) -> None:
    champion = version_of("additive")
    with database.writing() as connection:
        for number, name in ((1, champion), (2, "other")):
            row = {"number": number, "version": name, "digest": "d", "threshold": 0.1}
            connection.execute(insert(versions).values(row))
            for kind, day in (("day", 20_000), ("day", 20_001), ("month", 19_997)):
                told = {"figures": '{"psi":0.25}' if day != 20_001 else "{}"}
                made = {"version": number, "kind": kind, "day": day}
                connection.execute(insert(figures).values(made | told))
    until = "&until=2024-11-01"
    found = valid(client, f"/v1/drift?kind=day{until}", "/v1/drift")["figures"]
    assert found == [
        {"version": champion, "day": "2024-10-04", "psi": 0.25},
        {"version": champion, "day": "2024-10-05"},
    ]
    since = valid(client, f"/v1/drift?version=other&since=2024-10-05{until}", "/v1/drift")
    assert since["figures"] == [{"version": "other", "day": "2024-10-05"}]
    months = valid(client, "/v1/drift?kind=month", "/v1/drift")["figures"]
    assert [each["day"] for each in months] == ["2024-10-01"]
    assert valid(client, "/v1/drift?version=none", "/v1/drift")["figures"] == []
    valid(client, "/v1/drift?kind=year", "/v1/drift", 400)
