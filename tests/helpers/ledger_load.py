"""A steady load of requests whose responses are compared with the ledger at the end."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from peerloan.database import Database, tables
from peerloan.uuid7 import text

_CLOSED = (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead)
_number = itertools.count()


@dataclass
class Request:
    """A request of a client, and the ids of the decisions in its response."""

    loan_ids: list[str]
    key: str | None
    ids: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """The requests of all clients, and the results of all attempts."""

    requests: list[Request] = field(default_factory=list)
    # Time, status (0: the connection broke) and client of each attempt.
    statuses: list[tuple[float, int, int]] = field(default_factory=list)
    longest: float = 0.0
    # Unexpected results: neither 200, nor 503 with Retry-After, nor a broken connection.
    faults: list[str] = field(default_factory=list)

    def count(self, status: int, since: float = 0.0) -> int:
        """How often clients got a status."""
        return sum(other == status and at >= since for at, other, _ in self.statuses)

    def statuses_seen(self) -> set[int]:
        """All statuses that clients got."""
        return {status for _, status, _ in self.statuses}

    def clients_answered(self, since: float) -> set[int]:
        """The clients that got a prediction since a time."""
        return {client for at, status, client in self.statuses if status == 200 and at >= since}


class Load:
    """Clients that send one loan or a list over persistent connections.

    Some requests have an Idempotency-Key; they are repeated until they are answered.
    """

    def __init__(
        self,
        port: int,
        loan: dict[str, Any],
        clients: int = 6,
        pause: float = 0.01,
        own_ids: bool = True,
    ) -> None:
        """`own_ids`: give each loan its own id."""
        self._port, self._loan, self._pause = port, loan, pause
        self._own_ids = own_ids
        self.clients = clients
        self.tally = Tally()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a client did not end within a minute"

    def is_answered(self, since: float) -> bool:
        """Whether every client got a prediction since a time."""
        with self._lock:
            return len(self.tally.clients_answered(since)) == self.clients

    def _client(self, number: int) -> None:
        connection = self._connection()
        for count in itertools.count(number):
            if self._stop.is_set():
                break
            many = 5 if count % 7 == 0 else 1
            loan_ids = [f"load-{next(_number)}" for _ in range(many)]
            request = Request(loan_ids, f"key-{loan_ids[0]}" if count % 3 == 0 else None)
            with self._lock:
                self.tally.requests.append(request)
            connection = self._ask(number, connection, request)
        connection.close()

    def _ask(
        self, number: int, connection: http.client.HTTPConnection, request: Request
    ) -> http.client.HTTPConnection:
        loans = [
            self._loan | ({"loan_id": loan_id} if self._own_ids else {})
            for loan_id in request.loan_ids
        ]
        body = json.dumps(loans if len(loans) > 1 else loans[0]).encode()
        head = {"Content-Type": "application/json"}
        if request.key is not None:
            head["Idempotency-Key"] = request.key
        while not self._stop.is_set():
            time.sleep(self._pause)
            began = time.monotonic()
            status, fault, closed = 0, "", False
            reused = connection.sock is not None
            try:
                connection.request("POST", "/v1/predictions", body, head)
                answer = connection.getresponse()
                content = answer.read()
                status = answer.status
                if status == 200:
                    result = json.loads(content)
                    predictions = result.get("predictions", [result])
                    request.ids = [prediction["id"] for prediction in predictions]
                elif status != 503 or not answer.headers["Retry-After"]:
                    fault = f"{status}: {content[:200]!r}"
            except _CLOSED:
                closed = True
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
                closed = True
            if closed:
                connection.close()
                connection = self._connection()
            ended = time.monotonic()
            with self._lock:
                self.tally.statuses.append((ended, status, number))
                self.tally.longest = max(self.tally.longest, ended - began)
                if fault:
                    self.tally.faults.append(fault)
            # A persistent connection that was closed before a response: the request is repeated.
            if status in (200, 500) or (request.key is None and not (closed and reused)):
                break
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)


@dataclass
class Counted:
    """The requests of a load, compared with the rows of the ledger."""

    sent: int
    answered: int
    stored: int
    lost: int
    doubled: int
    longest: float


def count(tally: Tally, url: str) -> Counted:
    """Compare the responses with the rows of the ledger, and check every chain."""
    decisions = list(rows(url))
    stored = Counter(id_ for id_, *_ in decisions)
    by_loan = Counter(loan_id for _, _, _, loan_id in decisions)
    answered = [pair for request in tally.requests for pair in _answered(request)]
    pairs = {(id_, loan_id) for id_, _, _, loan_id in decisions}
    lost = sum(pair not in pairs for pair in answered)
    # Doubled: a second row of an id, an id in two responses, or more than one row per loan of a
    # request with a key.
    doubled = sum(stored.values()) - len(stored)
    doubled += len(answered) - len({id_ for id_, _ in answered})
    for request in tally.requests:
        if request.key is not None:
            doubled += sum(max(0, by_loan[loan_id] - 1) for loan_id in request.loan_ids)
    check_chains(decisions)
    return Counted(
        len(tally.requests), len(answered), len(decisions), lost, doubled, round(tally.longest, 2)
    )


def _answered(request: Request) -> Iterator[tuple[str, str]]:
    return zip(request.ids, request.loan_ids, strict=bool(request.ids))


def rows(url: str) -> Iterator[tuple[str, int, int, str]]:
    """All decisions as (id, chain, seq, loan id), ordered by chain and seq."""
    table = tables.decisions
    with Database(url).reading() as connection:
        query = select(table.c.id, table.c.chain, table.c.seq, table.c.loan_id)
        for row in connection.execute(query.order_by(table.c.chain, table.c.seq)):
            yield text(row.id.bytes), row.chain, row.seq, row.loan_id


def check_chains(decisions: list[tuple[str, int, int, str]]) -> None:
    """Check that each chain is numbered from 1 without a gap, and that its ids ascend."""
    for number, group in itertools.groupby(decisions, key=lambda row: row[1]):
        chain = list(group)
        seqs = [seq for _, _, seq, _ in chain]
        assert seqs == list(range(1, len(chain) + 1)), f"chain {number}"
        ids = [id_ for id_, *_ in chain]
        assert ids == sorted(ids), f"chain {number}"


def chains(url: str) -> list[Any]:
    """The rows of the table of chains."""
    with Database(url).reading() as connection:
        return list(connection.execute(select(tables.chains).order_by(tables.chains.c.number)))
