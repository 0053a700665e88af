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

import pytest
from sqlalchemy import select

from peerloan.ledger import Database
from peerloan.ledger.schema import deliveries
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
    away = Webhook("http://me:hidden@127.0.0.1:9/x", str(tmp_path / "secret"))
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


Run = Callable[..., subprocess.CompletedProcess[str]]
