"""Clients that stop half-way, and what becomes of the others."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.service import SERVE, Serve, Service
from peerloan.registry import Store
from peerloan.web.http.body_waits import BodyWaits
from peerloan.web.http.deferred_response import DEFERRED_KEY
from peerloan.web.http.problems import RequestError

HEAD = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
PREDICTIONS = HEAD % b"/v1/predictions"
STALLED = (
    PREDICTIONS + b"Content-Length: 100\r\n\r\n{",
    PREDICTIONS + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
    HEAD % b"/v2/models/champion/infer" + b"Content-Length: 100\r\n\r\n{",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 100\r\n\r\na=",
)
# `peerloan serve` as it is, but for the limits.
LIMITED = (
    "import sys; from peerloan.web.http.body_waits import waits; "
    "waits.max_waits, waits.seconds, waits.drop_seconds = {max_waits}, {seconds}, {seconds}; "
    "from peerloan.cli import main; sys.argv[0] = 'peerloan'; main()"
)


@pytest.fixture
def clients() -> Iterator[Callable[[Service, bytes], socket.socket]]:
    """Connect and send something; closed after the test."""
    with contextlib.ExitStack() as stack:

        def connect(service: Service, data: bytes) -> socket.socket:
            address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
            connection = stack.enter_context(socket.create_connection(address, timeout=30))
            connection.sendall(data)
            return connection

        yield connect


@pytest.fixture
def limited(
    champion: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int, float], Service]]:
    """A service that waits for at most so many bodies, and for so many seconds."""
    started: list[Service] = []
    real = subprocess.Popen

    def start(max_waits: int, seconds: float) -> Service:
        def popen(command: list[str], **options: Any) -> Any:
            code = LIMITED.format(max_waits=max_waits, seconds=seconds)
            return real([sys.executable, "-c", code, *command[3:]], **options)

        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", popen)
            service = Service(champion.root, tmp_path / "server.log", 1, server=SERVE)
        started.append(service)
        service.wait_for(lambda: requests.get(f"{service.url}/readyz", timeout=5).ok)
        return service

    yield start
    for service in started:
        service.stop()


def read_answer(connection: socket.socket) -> tuple[int, http.client.HTTPMessage, dict[str, Any]]:
    """The status, headers and problem of an answer, up to the connection's end."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    try:
        content = answer.read()
    except http.client.IncompleteRead as error:  # so is a body that did not arrive answered
        content = error.partial
    assert connection.recv(1) == b""
    return answer.status, answer.headers, json.loads(content)


@pytest.mark.parametrize(("workers", "stalled"), [(1, 64), (2, 64), (1, 200)])
def test_clients_that_stop_half_way_hold_up_nobody(
    champion: Store,
    serve: Serve,
    clients: Callable[[Service, bytes], socket.socket],
    loan: dict[str, Any],
    workers: int,
    stalled: int,
) -> None:
    service = serve(champion, workers)
    for index in range(stalled):
        clients(service, STALLED[index % len(STALLED)])
    for _ in range(5):
        for answer in (
            requests.get(f"{service.url}/healthz", timeout=10),
            requests.post(f"{service.url}/v1/predictions", json=loan, timeout=10),
            requests.get(f"{service.url}/", timeout=10),
        ):
            assert answer.status_code == 200


def test_clients_that_say_nothing_or_do_not_listen_hold_up_nobody(
    champion: Store,
    serve: Serve,
    clients: Callable[[Service, bytes], socket.socket],
    loan: dict[str, Any],
) -> None:
    service = serve(champion)
    deaf = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50
    for data in (b"", b"POST /v1/predic", PREDICTIONS, deaf):
        for _ in range(40):
            clients(service, data)
    assert requests.get(f"{service.url}/healthz", timeout=10).status_code == 200
    answer = requests.post(f"{service.url}/v1/predictions", json=loan, timeout=10)
    assert answer.status_code == 200


def test_a_body_that_is_late_is_ended_with_408(
    limited: Callable[[int, float], Service],
    clients: Callable[[Service, bytes], socket.socket],
) -> None:
    service = limited(256, 0.5)
    refused = HEAD % b"/nowhere" + b"Content-Length: 100\r\n\r\n{"
    for connection in [clients(service, data) for data in (*STALLED, refused)]:
        status, headers, problem = read_answer(connection)
        assert (status, headers["Content-Type"]) == (408, "application/problem+json")
        assert (problem["status"], problem["detail"]) == (408, "the body did not arrive in time")
        assert headers["X-Request-Id"]


def test_a_body_that_comes_byte_by_byte_is_ended_too(
    limited: Callable[[int, float], Service], clients: Callable[[Service, bytes], socket.socket]
) -> None:
    connection = clients(limited(256, 1.0), PREDICTIONS + b"Content-Length: 100000\r\n\r\n")
    connection.settimeout(0.1)
    received = b""
    until = time.monotonic() + 30
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < until:
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                if not (data := connection.recv(10_000)):
                    break
                received += data
    assert received.startswith(b"HTTP/1.1 408 ")


def test_of_too_many_bodies_those_that_took_longest_are_ended_with_503(
    limited: Callable[[int, float], Service],
    clients: Callable[[Service, bytes], socket.socket],
    loan: dict[str, Any],
) -> None:
    service = limited(4, 60.0)
    first = [clients(service, STALLED[0]) for _ in range(3)]
    time.sleep(0.2)
    later = [clients(service, STALLED[0]) for _ in range(4)]
    for connection in first:
        status, headers, problem = read_answer(connection)
        assert (status, headers["Retry-After"]) == (503, "1")
        assert problem["title"] == "Too Many Unfinished Requests"
    for connection in later:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    answer = requests.post(f"{service.url}/v1/predictions", json=loan, timeout=10)
    assert answer.status_code == 200


def test_a_body_that_was_read_in_time_is_not_ended() -> None:
    ended: list[tuple[Any, ...]] = []

    class Response:
        def respond_early(self, *sent: Any) -> None:
            ended.append(sent)

    waits = BodyWaits(max_waits=1, seconds=0.0)
    read = waits.start({DEFERRED_KEY: Response()})
    waits.finish(read)
    waits.end_late()
    assert ended == []
    late = waits.start({DEFERRED_KEY: Response()})
    waits.end_late()
    with pytest.raises(RequestError, match="did not arrive in time"):
        waits.finish(late)


def test_of_too_many_bodies_a_fresh_one_is_not_ended() -> None:
    waits = BodyWaits(max_waits=1, seconds=60.0)
    first, second = waits.start({}), waits.start({})
    waits.end_late()
    assert (first.error, second.error) == (None, None), "a burst of complete requests passes"
    first.started -= 10
    waits.end_late()
    with pytest.raises(RequestError, match="too many request bodies are arriving at once"):
        waits.finish(first)
    waits.finish(second)
