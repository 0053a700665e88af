"""A small load generator: keep-alive connections that each send one request at a time."""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

CONNECTIONS = 32


@dataclass(frozen=True)
class Load:
    """The results of a load: answers with 200, other answers, and response times in seconds."""

    seconds: float
    answered: int
    failed: int
    waits: list[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.answered / self.seconds

    def percentile(self, share: float) -> float:
        """Return the response time in seconds that this share of answers did not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post(path: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Return an HTTP POST request with a JSON body, as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body


def run(
    port: int,
    message: bytes | Callable[[], bytes],
    seconds: float,
    rate: float | None = None,
    heard: Callable[[float, float, bytes], None] = lambda *_: None,
) -> Load:
    """Send a message repeatedly on 32 connections for some seconds.

    `message` may be a function that makes each message. `rate` limits the messages a second, to
    measure response times of a server that is not overloaded. `heard` gets each answer: the times
    of the request and of the answer, by `time.perf_counter`, and its bytes.
    """
    interval = CONNECTIONS / rate if rate else 0.0
    selector = selectors.DefaultSelector()
    make = message if callable(message) else lambda: message
    clients = [_Client(port, selector) for _ in range(CONNECTIONS)]
    begin = time.perf_counter()
    due = [(begin + i * interval / CONNECTIONS, i) for i in range(CONNECTIONS)]
    answered = failed = 0
    waits: list[float] = []
    while (now := time.perf_counter()) - begin < seconds:
        while due and due[0][0] <= now:
            clients[heapq.heappop(due)[1]].send(make())
        patience = max(0.0, due[0][0] - now) if due else 1.0
        for key, _ in selector.select(patience):
            client: _Client = key.data
            if not client.receive():
                continue
            now = time.perf_counter()
            waits.append(now - client.sent_at)
            heard(client.sent_at, now, client.received)
            ok = client.received.startswith(b"HTTP/1.1 200")
            answered, failed = answered + ok, failed + (not ok)
            if interval:
                client.sent = False
                heapq.heappush(due, (client.sent_at + interval, clients.index(client)))
            else:
                client.send(make())
    taken = time.perf_counter() - begin
    for client in clients:
        client.connection.close()
    selector.close()
    return Load(taken, answered, failed, waits)


class _Client:
    """A connection that is opened again if the server closes it."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._port, self._selector = port, selector
        self.sent, self.sent_at, self.received = False, 0.0, b""
        self._message = b""
        self._connect()

    def send(self, message: bytes) -> None:
        """Send a message, and start its time."""
        self._message = message
        self.sent, self.sent_at, self.received = True, time.perf_counter(), b""
        try:
            self.connection.sendall(message)
        except ConnectionError:  # the server has closed it
            self._again()

    def receive(self) -> bool:
        """Receive some bytes. Return whether the answer is complete."""
        part = self.connection.recv(65536)
        self.received += part
        if not part:  # the server closed it after the previous answer
            self._again()
        return self.sent and bool(part) and _whole(self.received)

    def _again(self) -> None:
        self._selector.unregister(self.connection)
        self.connection.close()
        self._connect()
        self.received = b""
        if self.sent:
            self.connection.sendall(self._message)

    def _connect(self) -> None:
        self.connection = socket.create_connection(("127.0.0.1", self._port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self.connection, selectors.EVENT_READ, self)


def _whole(answer: bytes) -> bool:
    """Whether an answer with a Content-Length is complete."""
    head, mark, body = answer.partition(b"\r\n\r\n")
    if not mark:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    raise ValueError("expected an answer with Content-Length")
