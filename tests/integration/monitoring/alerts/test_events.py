"""Events: delivered at least once, in order, and stored with their acknowledgements."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from peerloan.database import Database, tables
from peerloan.monitoring.alerts import delivery
from peerloan.monitoring.alerts.delivery import deliver_due
from peerloan.monitoring.alerts.events import (
    BEGAN,
    ENDED,
    AlreadyAcknowledged,
    UnknownEvent,
    acknowledge,
    event_page,
    store_event,
)
from peerloan.monitoring.config import Channels, Webhook

SECRET = b"a secret that nobody guesses"
HOUR = 3_600_000


def store(database: Database, *channels: str, kind: str = BEGAN, now_ms: int = 0) -> str:
    data = {"rule": "feature-drift", "about": "int_rate", "value": 0.3, "limit": 0.25}
    with database.writing() as connection:
        return store_event(connection, kind, "additive-1", data, now_ms, channels)


class Receiver(ThreadingHTTPServer):
    """The receiver of a webhook. It responds with the statuses in `answers`, then with 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/word"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
        answer = self.server.answers.pop(0) if self.server.answers else 204
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def webhook(receiver: Receiver, tmp_path: Path) -> Channels:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    return Channels(log=False, webhook=Webhook(receiver.url, str(tmp_path / "secret")))


def test_a_webhook_gets_a_signed_cloud_event(
    database: Database, receiver: Receiver, webhook: Channels
) -> None:
    event_id = store(database, "webhook", now_ms=1_700_000_000_123)
    deliver_due(database, webhook, 1_700_000_001_000)
    deliver_due(database, webhook, 1_700_000_002_000)
    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert event["specversion"] == "1.0"
    assert (event["id"], event["source"], event["type"]) == (event_id, "/peerloan/monitor", BEGAN)
    assert (event["subject"], event["datacontenttype"]) == ("additive-1", "application/json")
    assert event["time"] == "2023-11-14T22:13:20.123000Z"
    assert event["data"]["about"] == "int_rate"
    assert headers["content-type"] == "application/cloudevents+json; charset=UTF-8"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (event_id, "1700000001")
    signed = f"{event_id}.1700000001.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_failed_deliveries_are_retried_later_and_do_not_delay_other_channels(
    database: Database,
    receiver: Receiver,
    webhook: Channels,
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = Channels(log=True, webhook=webhook.webhook)
    first = store(database, "log", "webhook")
    second = store(database, "log", "webhook", kind=ENDED)
    receiver.answers = [500, 302]
    now = 1_000
    with caplog.at_level(logging.WARNING):
        deliver_due(database, both, now)
    assert [each in caplog.text for each in (f"event {first}", f"event {second}")] == [True, True]
    assert "responded with the status 500" in caplog.text
    assert "word" not in caplog.text
    assert len(receiver.got) == 1, "the first failure ends the turn"
    deliver_due(database, both, now + 10_000)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == [first, second]
    assert "responded with the status 302" in caplog.text, "a redirection is not followed"
    deliver_due(database, both, now + 12_000)
    assert len(receiver.got) == 2, "not yet"
    receiver.answers = [500]
    deliver_due(database, both, now + 37_000)
    assert [headers["webhook-id"] for headers, _ in receiver.got[2:]] == [first]
    deliver_due(database, both, now + 50_000)
    assert [headers["webhook-id"] for headers, _ in receiver.got[3:]] == [second]
    deliver_due(database, both, now + 70_000)
    assert len(receiver.got) == 4, "it waits longer each time"
    deliver_due(database, both, now + 120_000)
    event_ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert event_ids == [first, second, first, second, first]
    with database.reading() as connection:
        assert connection.execute(select(tables.deliveries.c.next_ms)).scalars().all() == [None] * 4


def test_an_event_that_was_not_marked_as_delivered_is_sent_again_with_the_same_id(
    database: Database, receiver: Receiver, webhook: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = store(database, "webhook")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Database, "writing", stop)
        with pytest.raises(KeyboardInterrupt):
            deliver_due(database, webhook, 0)
    deliver_due(database, webhook, 1)
    assert [headers["webhook-id"] for headers, _ in receiver.got] == [event_id] * 2


def test_deliveries_are_given_up_after_a_week(
    database: Database, webhook: Channels, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.server_close()
    store(database, "webhook")
    now = tries = 0
    while now < 9 * 24 * HOUR:
        before = len(caplog.records)
        deliver_due(database, webhook, now)
        tries += len(caplog.records) > before
        now += HOUR // 2
    assert 120 < tries < 400
    assert "given up after a week" in caplog.text
    assert "Connection refused" in caplog.text


def test_a_command_gets_the_event_without_a_shell(database: Database, tmp_path: Path) -> None:
    script = (
        "import sys; open(sys.argv[1], 'a').write(sys.stdin.read()); sys.exit(len(sys.argv) > 2)"
    )
    out = tmp_path / "out; rm"
    channels = Channels(log=False, command=(sys.executable, "-c", script, str(out)))
    event_id = store(database, "command")
    deliver_due(database, channels, 0)
    assert json.loads(out.read_text())["id"] == event_id
    store(database, "command")
    deliver_due(database, Channels(log=False, command=(*(channels.command or ()), "fail")), 0)
    with database.reading() as connection:
        faults = connection.execute(select(tables.deliveries.c.fault)).scalars().all()
    assert faults == [None, f"{sys.executable}: exit code 1"]
    deliver_due(database, Channels(log=False), HOUR)
    with database.reading() as connection:
        assert (
            "the config has no such channel any more"
            in connection.execute(select(tables.deliveries.c.fault)).scalars()
        )


@pytest.fixture
def dripping() -> Iterator[str]:
    """The address of a receiver that responds byte by byte, without end."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not over.wait(0.05):
                    connection.sendall(b"a")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=drip, args=server.accept()[:1], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/word"
        over.set()


def test_an_endless_response_of_a_webhook_is_cut_at_the_time_limit(
    database: Database,
    dripping: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(delivery, "WEBHOOK_SECONDS", 0.5)
    (tmp_path / "secret").write_bytes(SECRET)
    store(database, "webhook")
    deliver_due(
        database, Channels(log=False, webhook=Webhook(dripping, str(tmp_path / "secret"))), 1
    )
    assert "could not be delivered to the webhook" in caplog.text
    assert "took longer than" in caplog.text
    for thread in threading.enumerate():
        if thread.name == "webhook":
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("answer", [b"no HTTP at all\r\n\r\n", b"", b"HTTP/1.1 2xx\r\n\r\n"])
def test_a_webhook_without_valid_http_is_tried_again(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    store(database, "webhook")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threading.Thread(target=reply, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/word"
        deliver_due(
            database, Channels(log=False, webhook=Webhook(url, str(tmp_path / "secret"))), 1
        )
    assert "could not be delivered to the webhook, next try in" in caplog.text


def test_a_hanging_command_is_killed_with_its_children(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 1.0)
    pids = tmp_path / "pids"
    hanging = ("sh", "-c", f"echo $$ > {pids}; sleep 1000 & echo $! >> {pids}; wait")
    store(database, "command")
    deliver_due(database, Channels(log=False, command=hanging), 1)
    assert "sh: took longer than 1 s" in caplog.text
    for pid in map(int, pids.read_text().split()):
        stat = Path(f"/proc/{pid}/stat")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert stat.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_command_may_leave_a_child_running(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store(database, "command")
    deliver_due(
        database, Channels(log=False, command=("sh", "-c", "sleep 5 & echo no >&2; exit 3")), 1
    )
    assert "sh: exit code 3: no" in caplog.text


def test_an_acknowledgement_is_never_replaced(database: Database) -> None:
    made = [store(database) for _ in range(3)]
    assert [each.id for each in event_page(database, 2)] == made[:0:-1]
    found = acknowledge(database, made[1], "anna", "rates were raised")
    assert found.acknowledged is not None
    assert (found.acknowledged.who, found.acknowledged.why) == ("anna", "rates were raised")
    with pytest.raises(AlreadyAcknowledged, match="is already acknowledged, by anna"):
        acknowledge(database, made[1], "ben", "")
    with pytest.raises(UnknownEvent, match="nothing: no such event"):
        acknowledge(database, "nothing", "ben", "")
    assert [each.id for each in event_page(database, 9, only_open=True)] == [made[2], made[0]]
    (last,) = event_page(database, 9, before=event_page(database, 9)[1].number)
    assert last.id == made[0]
