"""How Gunicorn sends what the application answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from gunicorn.http import wsgi
from gunicorn.workers import gthread

from peerloan.web.server import gunicorn_worker


class Recorder:
    """A socket that keeps what each call sent."""

    def __init__(self) -> None:
        self.sends: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sends.append(bytes(data))


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The socket of a worker that has started."""
    monkeypatch.setattr(wsgi, "Response", wsgi.Response)  # put back after the test
    monkeypatch.setattr(gthread.ThreadWorker, "init_process", lambda _self: None)
    object.__new__(gunicorn_worker.Worker).init_process()
    return Recorder()


def respond(socket: Recorder, method: str, headers: list[tuple[str, str]]) -> wsgi.Response:
    request = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: False)
    response = wsgi.Response(request, socket, SimpleNamespace(protocol="http"))
    response.start_response("200 OK", headers)
    return response


def test_head_and_body_leave_in_one_piece(socket: Recorder) -> None:
    response = respond(socket, "POST", [("Content-Length", "5")])
    response.write(b"hello")
    response.close()
    assert len(socket.sends) == 1
    head, _, body = socket.sends[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hello"


def test_later_parts_follow_as_they_come(socket: Recorder) -> None:
    response = respond(socket, "GET", [])
    for part in (b"first", b"second"):
        response.write(part)
    response.close()
    assert len(socket.sends) == 3
    assert socket.sends[0].endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert b"".join(socket.sends[1:]) == b"6\r\nsecond\r\n0\r\n\r\n"


def test_an_answer_without_a_body_is_its_head(socket: Recorder) -> None:
    response = respond(socket, "HEAD", [("Content-Length", "5")])
    response.close()
    assert len(socket.sends) == 1
    assert socket.sends[0].endswith(b"\r\n\r\n")
