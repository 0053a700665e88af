"""A steady load whose answers are counted against the ledger in the end."""

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
    """A request of a client, and what became of it. `ids` are those that were answered."""

    loan_ids: list[str]
    key: str | None
    ids: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What clients saw: each try to get an answer, and the requests that got one."""

    requests: list[Request] = field(default_factory=list)
    # When each status came, or 0 where a connection broke; by client.
    statuses: list[tuple[float, int, int]] = field(default_factory=list)
    longest: float = 0.0
    # What came beside a 200, a 503 with Retry-After, and a connection that broke.
    faults: list[str] = field(default_factory=list)

    def count(self, status: int, since: float = 0.0) -> int:
        """How often a status was seen."""
        return sum(seen == status and at >= since for at, seen, _ in self.statuses)

    def statuses_seen(self) -> set[int]:
        """Every status that was seen."""
        return {seen for _, seen, _ in self.statuses}

    def clients_answered(self, since: float) -> set[int]:
        """The clients that got a prediction since then."""
        return {client for at, seen, client in self.statuses if seen == 200 and at >= since}


class Load:
    """Clients on connections that they keep: some ask for one loan, some for lists, and some with
    an Idempotency-Key, which they then ask with until they are answered.
    """

    def __init__(
        self,
        port: int,
        loan: dict[str, Any],
        clients: int = 6,
        pause: float = 0.01,
        own_ids: bool = True,
    ) -> None:
        """`own_ids`: each loan gets an id of its own."""
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
            assert not thread.is_alive(), "a client waits for ever"

    def is_answered(self, since: float) -> bool:
        """Whether every client got a prediction since then."""
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
            self._loan | ({"loan_id": each} if self._own_ids else {}) for each in request.loan_ids
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
                    told = json.loads(content)
                    request.ids = [each["id"] for each in told.get("predictions", [told])]
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
            # A kept connection that was closed before an answer: that request is asked again.
            if status in (200, 500) or (request.key is None and not (closed and reused)):
                break
        return connection

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)


@dataclass
class Counted:
    """A load's requests against the ledger's rows."""

    sent: int
    answered: int
    stored: int
    lost: int
    doubled: int
    longest: float


def count(tally: Tally, url: str) -> Counted:
    """Count what was answered against what is kept, and see that every chain is whole."""
    found = list(rows(url))
    stored = Counter(made for made, *_ in found)
    by_loan = Counter(loan_id for _, _, _, loan_id in found)
    answered = [(made, loan_id) for each in tally.requests for made, loan_id in _answered(each)]
    kept = {(made, loan_id) for made, _, _, loan_id in found}
    lost = sum(each not in kept for each in answered)
    # A row too many: of an id, or of a request that has a key; or an id that was answered twice.
    doubled = sum(stored.values()) - len(stored)
    doubled += len(answered) - len({made for made, _ in answered})
    for request in tally.requests:
        if request.key is not None:
            doubled += sum(max(0, by_loan[each] - 1) for each in request.loan_ids)
    check_chains(found)
    return Counted(
        len(tally.requests), len(answered), len(found), lost, doubled, round(tally.longest, 2)
    )


def _answered(request: Request) -> Iterator[tuple[str, str]]:
    return zip(request.ids, request.loan_ids, strict=bool(request.ids))


def rows(url: str) -> Iterator[tuple[str, int, int, str]]:
    """Every decision: id, chain, seq and loan id, by chain and seq."""
    table = tables.decisions
    with Database(url).reading() as connection:
        wanted = select(table.c.id, table.c.chain, table.c.seq, table.c.loan_id)
        for row in connection.execute(wanted.order_by(table.c.chain, table.c.seq)):
            yield text(row.id.bytes), row.chain, row.seq, row.loan_id


def check_chains(found: list[tuple[str, int, int, str]]) -> None:
    """Each chain counts from one on without a gap, and its ids rise."""
    for number, group in itertools.groupby(found, key=lambda row: row[1]):
        chain = list(group)
        seqs = [seq for _, _, seq, _ in chain]
        assert seqs == list(range(1, len(chain) + 1)), f"chain {number}"
        ids = [made for made, *_ in chain]
        assert ids == sorted(ids), f"chain {number}"


def chains(url: str) -> list[Any]:
    """The chains, as they are written down."""
    with Database(url).reading() as connection:
        return list(connection.execute(select(tables.chains).order_by(tables.chains.c.number)))
