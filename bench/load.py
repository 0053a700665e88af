"""A small load generator: keep-alive connections that each send one request at a time."""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Load:
    """What a load saw: requests answered with 200, failed ones, and each answer's seconds."""

    seconds: float
    answered: int
    failed: int
    waits: list[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.answered / self.seconds

    def percentile(self, share: float) -> float:
        """The wait in seconds that this share of answers did not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post(path: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """A POST of JSON as bytes on the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body


def run(
    port: int, message: bytes, seconds: float, connections: int = 8, rate: float | None = None
) -> Load:
    """Send one message over and over for so many seconds on so many connections.

    At most `rate` messages a second, if given: then each wait is that of a server at ease.
    """
    interval = connections / rate if rate else 0.0
    selector = selectors.DefaultSelector()
    sent: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    due: list[tuple[float, int, socket.socket]] = []
    answered = failed = 0
    waits: list[float] = []
    begin = time.perf_counter()
    for number in range(connections):
        connection = _connect(port, selector)
        received[connection] = b""
        heapq.heappush(due, (begin + number * interval / connections, number, connection))
    while (now := time.perf_counter()) - begin < seconds:
        while due and due[0][0] <= now:
            _, _, connection = heapq.heappop(due)
            sent[connection] = time.perf_counter()
            connection.sendall(message)
        patience = max(0.0, due[0][0] - now) if due else 1.0
        for key, _ in selector.select(patience):
            connection = key.fileobj  # type: ignore[assignment]
            part = connection.recv(65536)
            received[connection] += part
            if not _whole(received[connection]):
                if not part:  # a server that keeps no connections
                    sent_at = sent.pop(connection)
                    del received[connection]
                    selector.unregister(connection)
                    connection.close()
                    connection = _connect(port, selector)
                    received[connection], sent[connection] = b"", sent_at
                    connection.sendall(message)
                continue
            now = time.perf_counter()
            waits.append(now - sent[connection])
            ok = received[connection].startswith(b"HTTP/1.1 200")
            answered, failed = answered + ok, failed + (not ok)
            received[connection] = b""
            if interval:
                heapq.heappush(due, (sent[connection] + interval, id(connection), connection))
            else:
                sent[connection] = now
                connection.sendall(message)
    taken = time.perf_counter() - begin
    for connection in received:
        connection.close()
    selector.close()
    return Load(taken, answered, failed, waits)


def _connect(port: int, selector: selectors.BaseSelector) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(connection, selectors.EVENT_READ)
    return connection


def _whole(answer: bytes) -> bool:
    """Whether an answer with a Content-Length has come whole."""
    head, mark, body = answer.partition(b"\r\n\r\n")
    if not mark:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    raise ValueError("an answer without Content-Length")
