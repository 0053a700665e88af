"""A steady load on a service, and the result of each request."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

_CLOSED = (ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass
class Tally:
    """The results of a load. A request has failed if its status was not 2xx."""

    requests: int = 0
    loans: int = 0
    failed: int = 0
    repeated: int = 0
    longest: float = 0.0
    versions: Counter[str] = field(default_factory=Counter)
    # Start, end and version of each answered request.
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    # The ids of the decisions in the responses.
    ids: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Load:
    """Clients that request predictions in a loop, over persistent connections.

    Every second client sends an `Idempotency-Key`, so that a repeated request counts once; for the
    other clients the proxy adds one.
    """

    def __init__(
        self,
        port: int,
        loan: dict[str, Any],
        clients: int = 8,
        pause: float = 0.02,
        tls: bool = True,
        token: str = "",
    ) -> None:
        self._port, self._pause, self._tls = port, pause, tls
        self._head = {"Content-Type": "application/json"}
        if token:
            self._head["Authorization"] = f"Bearer {token}"
        self._body = json.dumps(loan).encode()
        self._many = json.dumps([loan] * 20).encode()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._tally = Tally()
        self._threads = [
            threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the clients after their current request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def take(self) -> Tally:
        """The results since the last call."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
        return taken

    def _client(self, number: int) -> None:
        # The certificate of the tests is self-signed.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = self._connection(context)
        count = number
        while not self._stop.is_set():
            if self._pause:
                time.sleep(self._pause)
            count += 1
            body, loans = (self._many, 20) if count % 10 == 0 else (self._body, 1)
            head = self._head | ({"Idempotency-Key": str(uuid.uuid4())} if number % 2 else {})
            began = time.monotonic()
            repeated = False
            try:
                try:
                    status, content = self._ask(connection, body, head)
                except _Unanswered:
                    repeated = True
                    connection.close()
                    connection = self._connection(context)
                    status, content = self._ask(connection, body, head)
                fault, versions, ids = "", [], []
                if status // 100 == 2:
                    answer = json.loads(content)
                    predictions = answer.get("predictions", [answer])
                    versions = [one["model"]["version"] for one in predictions]
                    ids = [one["id"] for one in predictions]
                else:
                    fault = f"{status}: {content[:200]!r}"
            except Exception as error:
                fault, versions, ids = f"{type(error).__name__}: {error}", [], []
                connection.close()
                connection = self._connection(context)
            ended = time.monotonic()
            with self._lock:
                self._tally.requests += 1
                self._tally.loans += loans
                self._tally.repeated += repeated
                self._tally.longest = max(self._tally.longest, ended - began)
                self._tally.versions.update(versions)
                self._tally.answers += [(began, ended, version) for version in set(versions)]
                self._tally.ids += ids
                if fault:
                    self._tally.failed += 1
                    self._tally.faults.append(fault)
        connection.close()

    def _connection(self, context: ssl.SSLContext) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=context, timeout=40)

    def _ask(
        self, connection: http.client.HTTPConnection, body: bytes, head: dict[str, str]
    ) -> tuple[int, bytes]:
        reused = connection.sock is not None
        try:
            connection.request("POST", "/v1/predictions", body, head)
            answer = connection.getresponse()
        except _CLOSED as error:
            # The server may close a persistent connection just as a request is sent. Then the
            # client must repeat the request.
            if reused:
                raise _Unanswered from error
            raise
        return answer.status, answer.read()


class _Unanswered(Exception):
    """A reused connection was closed before the first byte of a response."""
