"""Under a steady load the ledger's database fails in every way that we know, and workers are
killed: every answered decision is in the ledger exactly once, and nobody waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from helpers.ledger_load import Counted, Load, chains, count
from helpers.pgbouncer import PgBouncer
from helpers.postgres import Postgres, children
from helpers.proxy import Proxy
from helpers.service import GUNICORN, Serve, Service
from helpers.sizes import STEADY_SECONDS
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.ledger import Seal
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.write.group_commit import LIMIT_SECONDS
from peerloan.registry import Store

pytestmark = pytest.mark.longer
# What a busy machine may add to the writer's limit.
SLACK_SECONDS = 4.0
REFUSED = "refused"


@dataclass
class Proof:
    """A line for each fault."""

    lines: list[tuple[str, Counted]] = field(default_factory=list)


@pytest.fixture(scope="module")
def proof(pytestconfig: pytest.Config) -> Iterator[Proof]:
    made = Proof()
    yield made
    show(made, pytestconfig)


def show(proof: Proof, config: pytest.Config) -> None:
    """Print the table beside the tests' own output."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    names = ("requests sent", "decisions answered", "stored", "lost", "doubled", "longest wait")
    rows: list[tuple[str, ...]] = [("fault", *names)]
    for what, seen in proof.lines:
        counts = (seen.sent, seen.answered, seen.stored, seen.lost, seen.doubled)
        rows.append((what, *(f"{each:,}" for each in counts), f"{seen.longest:.2f} s"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    with capture.global_and_fixture_disabled():
        print()
        for first, *cells in rows:
            line = [first.ljust(widths[0])]
            line += [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            print("  ".join(line))


class Faulty:
    """A service on a ledger of its own, under load."""

    def __init__(self, service: Service, loan: dict[str, Any], url: str, proof: Proof) -> None:
        self.service, self.url, self._proof = service, url, proof
        self.loan = loan
        self.port = int(service.url.rpartition(":")[2])
        self.load = Load(self.port, loan)

    @contextlib.contextmanager
    def loaded(self, what: str) -> Iterator[Load]:
        """A load, with a fault in the middle of it: all is well before it and after it."""
        with self.load as load:
            self.wait_for_answers()
            time.sleep(STEADY_SECONDS)
            yield load
            self.wait_for_answers()
            time.sleep(STEADY_SECONDS)
        assert self.service.process.poll() is None, "it recovers without a restart"
        self.check(what)

    def wait_for_answers(self) -> None:
        """Wait until every client got a prediction from now on."""
        now = time.monotonic()
        self.service.wait_for(lambda: self.load.is_answered(now), 40)

    def check(self, what: str) -> None:
        """Count, and hold the promise."""
        tally = self.load.tally
        counted = count(tally, self.url)
        kind = "SQLite" if self.url.startswith("sqlite") else "PostgreSQL"
        self._proof.lines.append((f"{what} ({kind})", counted))
        assert tally.faults == []
        assert counted.answered > 100, "there was a load"
        assert (counted.lost, counted.doubled) == (0, 0)
        assert tally.longest <= LIMIT_SECONDS + SLACK_SECONDS

    def assert_unavailable(self, since: float) -> None:
        """While nothing could be kept, clients were told so."""
        assert self.load.tally.count(503, since) > 0

    def workers(self) -> list[int]:
        """The workers' processes."""
        return [
            each
            for each in children(self.service.process.pid)
            if b"resource_tracker" not in Path(f"/proc/{each}/cmdline").read_bytes()
        ]


@pytest.fixture
def faulty(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    loan: dict[str, Any],
    proof: Proof,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Faulty]:
    """Start a service with two workers on a ledger; `through` is another address of it."""
    store.promote(version_of("additive"))

    def start(url: str, through: str = "", **options: Any) -> Faulty:
        Database(url).upgrade()
        monkeypatch.setenv("PEERLOAN_LEDGER", through or url)
        return Faulty(serve(store, workers=2, **options), loan, url, proof)

    return start


def admin(url: str) -> psycopg.Connection[Any]:
    """A connection of one's own to PostgreSQL."""
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_workers_are_killed(faulty: Callable[..., Faulty], ledger_url: str, store: Store) -> None:
    here = faulty(ledger_url)
    with here.loaded("each worker is killed -9, twice") as load:
        for process in (each for _ in range(2) for each in here.workers()):
            loaded = here.service.loaded()
            os.kill(process, signal.SIGKILL)
            here.service.wait_for(lambda loaded=loaded: here.service.loaded() > loaded)  # type: ignore[misc]
        assert load.tally.count(0) > 0, "connections broke"
    assert len(chains(ledger_url)) > 1, "a worker that took the place of one has a chain of its own"
    verified = verify(Database(ledger_url), Seal.existing(store.root.parent / "peerloan-seal"))
    assert verified.findings.shown() == []


def test_it_ends_under_load(faulty: Callable[..., Faulty], ledger_url: str) -> None:
    here = faulty(ledger_url)
    with here.load:
        here.wait_for_answers()
        time.sleep(STEADY_SECONDS)
        here.service.process.terminate()
        here.service.process.wait(timeout=60)
    assert here.service.process.returncode == 0
    here.check("SIGTERM")
    found = chains(ledger_url)
    assert found
    assert all(chain.closed for chain in found)
    with Database(ledger_url).reading() as connection:
        last = connection.exec_driver_sql("SELECT chain, max(seq) FROM decisions GROUP BY chain")
        assert {chain.number: chain.head_seq for chain in found} == {row[0]: row[1] for row in last}


def test_a_record_is_refused(faulty: Callable[..., Faulty], ledger_url: str) -> None:
    """Each fails its own request, and the decisions of one list fail together."""
    here = faulty(ledger_url)
    if ledger_url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(Database(ledger_url).file)) as connection:
            connection.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON decisions WHEN NEW.loan_id = '{REFUSED}' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
    else:
        with admin(ledger_url) as postgres:
            check = f"CHECK (loan_id <> '{REFUSED}')"
            postgres.execute(f"ALTER TABLE decisions ADD CONSTRAINT refuse {check}".encode())
    with here.loaded("a record is refused, again and again") as load:
        began = time.monotonic()
        refused = Load(here.port, here.loan | {"loan_id": REFUSED}, clients=2, own_ids=False)
        with refused:
            time.sleep(2)
        assert refused.tally.statuses_seen() == {500}
        assert load.tally.count(503, began) == 0, "the neighbours are answered"
    assert "refused" in here.service.log.read_text()


def test_postgresql_is_stopped_for_20_seconds(
    faulty: Callable[..., Faulty], postgres: Postgres
) -> None:
    here = faulty(postgres.new())
    with here.loaded("stopped for 20 s and started again"):
        began = time.monotonic()
        postgres.stop()
        time.sleep(20)
        here.assert_unavailable(began)
        postgres.start()


def ask(here: Faulty, path: str, after: float) -> tuple[int, float]:
    """Ask in a while: the answer's status, and the seconds that it took."""
    time.sleep(after)
    began = time.monotonic()
    answer = requests.get(here.service.url + path, timeout=60)
    return answer.status_code, time.monotonic() - began


@pytest.mark.parametrize("server", ["serve", "gunicorn"])
def test_postgresql_is_frozen(
    faulty: Callable[..., Faulty], postgres: Postgres, server: str
) -> None:
    """Its connections stay open, and nothing comes."""
    here = faulty(postgres.new(), **({"server": GUNICORN} if server == "gunicorn" else {}))
    under = " under Gunicorn" if server == "gunicorn" else ""
    with here.loaded(f"frozen for 12 s{under}"):
        began = time.monotonic()
        with ThreadPoolExecutor() as asking:
            postgres.freeze()
            try:
                lists = [asking.submit(ask, here, "/v1/predictions", i) for i in range(4)]
                ready = asking.submit(ask, here, "/readyz", LIMIT_SECONDS + 2)
                time.sleep(12)
                here.assert_unavailable(began)
            finally:
                postgres.thaw()
        assert ready.result()[0] == 200
        for status, seconds in (each.result() for each in lists):
            assert status in (200, 503)
            assert seconds <= LIMIT_SECONDS + SLACK_SECONDS
        assert lists[0].result()[0] == 503, "a question has a limit of its own"


def test_connections_are_terminated(faulty: Callable[..., Faulty], postgres: Postgres) -> None:
    url = postgres.new()
    here = faulty(url)
    with here.loaded("every connection is terminated, 20 times"), admin(url) as connection:
        for _ in range(20):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.2)


def test_connections_are_cut(faulty: Callable[..., Faulty], postgres: Postgres) -> None:
    url = postgres.new()
    proxy = Proxy(postgres.port)
    here = faulty(url, through=url.replace(f":{postgres.port}/", f":{proxy.port}/"))
    try:
        with here.loaded("every connection is cut on its way, 20 times"):
            assert sum(cut() for cut in _slowly([proxy.cut] * 20)) > 20
    finally:
        proxy.close()


def _slowly(calls: list[Callable[[], int]]) -> Iterator[Callable[[], int]]:
    for call in calls:
        yield call
        time.sleep(0.2)


def tell_outcome(here: Faulty) -> int:
    """Tell what became of the first decision that was answered; the answer's status."""
    first = next(each.ids[0] for each in here.load.tally.requests if each.ids)
    body = {"outcomes": [{"id": first, "late": True}]}
    answer = requests.post(f"{here.service.url}/v1/outcomes", json=body, timeout=60)
    assert answer.status_code != 200 or answer.json()["stored"] == 1
    return answer.status_code


@pytest.mark.parametrize("moves", [True, False], ids=["moves", "hosts"])
def test_a_standby_takes_over(faulty: Callable[..., Faulty], store: Store, moves: bool) -> None:
    """The server dies; its standby can only be read for a while, and then is promoted. The URL has
    both hosts, or one address that leads to one of them.
    """
    with contextlib.ExitStack() as ended:
        primary = Postgres()
        ended.callback(primary.remove)
        url = primary.new()
        standby = Postgres(primary)
        ended.callback(standby.remove)
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run("SELECT pg_reload_conf()")
        proxy = Proxy(primary.port)
        ended.callback(proxy.close)
        here_port = f":{primary.port}/"
        hosts = f":{proxy.port}/" if moves else f":{primary.port},127.0.0.1:{standby.port}/"
        here = faulty(url, through=url.replace(here_port, hosts))
        here.url = url.replace(here_port, f":{standby.port}/")
        with here.loaded("its standby takes over" + (" at its address" if moves else "")):
            here.service.wait_for(lambda: here.load.tally.count(200) > 100, 60)
            began = time.monotonic()
            primary.stop(signal.SIGQUIT)
            proxy.to = standby.port
            proxy.cut()
            time.sleep(3)
            here.assert_unavailable(began)
            assert requests.get(f"{here.service.url}/readyz").json()["ledger"] == "unavailable"
            assert tell_outcome(here) == 503
            standby.run("SELECT pg_promote()")
        assert tell_outcome(here) == 200
        verified = verify(Database(here.url), Seal.existing(store.root.parent / "peerloan-seal"))
        assert dict(verified.findings.totals) == {}


class Other:
    """A client of the same pooler that goes on with transactions of its own."""

    def __init__(self, url: str) -> None:
        self.done, self.faults = 0, list[str]()
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Other:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        with admin(self._url) as connection:
            connection.prepare_threshold = None
            while not self._stop.is_set():
                try:
                    with connection.transaction():
                        connection.execute("SELECT pg_sleep(0.01)")
                        self.done += 1
                except psycopg.Error as error:
                    self.faults.append(str(error))
                    return


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pgbouncer_stands_between(
    faulty: Callable[..., Faulty], postgres: Postgres, mode: str
) -> None:
    """16 clients miss nothing; then its connections are cut, which ends nobody else's session."""
    url = postgres.new()
    size = 4 if mode == "transaction" else 40
    with contextlib.ExitStack() as ended:
        pooler = PgBouncer(postgres, mode, default_pool_size=size)
        ended.callback(pooler.remove)
        proxy = Proxy(pooler.port)
        ended.callback(proxy.close)
        pooled = pooler.through(url)
        here = faulty(url, through=pooled.replace(f":{pooler.port}/", f":{proxy.port}/"))
        others = [ended.enter_context(Other(pooled)) for _ in range(2)]
        here.load = Load(here.port, here.loan, clients=16)
        with here.loaded(f"behind PgBouncer ({mode}), cut 5 times"):
            here.service.wait_for(lambda: here.load.tally.count(200) > 200, 60)
            assert here.load.tally.statuses_seen() == {200}
            for _ in range(5):
                proxy.cut()
                time.sleep(0.4)
        assert [each.faults for each in others] == [[], []]
        assert min(each.done for each in others) > 100
        assert "prepared statement" not in here.service.log.read_text()


def test_the_disk_is_full(faulty: Callable[..., Faulty], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", disk], check=True)
    try:
        here = faulty(f"sqlite:///{disk}/ledger.db")
        filler = disk / "filler"
        with here.loaded("the disk is full for 4 s, twice"):
            for _ in range(2):
                began = time.monotonic()
                with contextlib.suppress(OSError), filler.open("wb") as file:
                    while True:
                        file.write(b"\0" * 100_000)
                        file.flush()
                time.sleep(4)
                here.assert_unavailable(began)
                filler.unlink()
                here.wait_for_answers()
        here.service.stop()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_database_is_locked(faulty: Callable[..., Faulty], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger/ledger.db"
    here = faulty(url)
    with here.loaded("locked by another process for 10 s"):
        began = time.monotonic()
        with contextlib.closing(sqlite3.connect(Database(url).file)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(10)
            here.assert_unavailable(began)
