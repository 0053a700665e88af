"""A chain continues correctly after its connection was lost during a statement."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from helpers.ledger_load import chains, check_chains, rows
from helpers.postgres import Postgres
from helpers.proxy import Proxy
from peerloan.database import Database, LedgerUnavailable
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.ledger.write.postgres_driver import Postgres as PostgresDriver
from peerloan.uuid7 import IdGenerator

_ids = IdGenerator()


def entry(loan_id: str) -> Entry:
    """A decision on a loan."""
    version = Version("first-000000000000", "0" * 64, 0.02)
    values = (1.0, 0.01, False, 1, "[]", None)
    return Entry([Record(_ids.new(), version, "api", "", "test", None, loan_id, "{}", *values)])


def stored_loans(url: str) -> list[str]:
    """Return the loans' ids in the ledger, after a check of its chains."""
    decisions = list(rows(url))
    check_chains(decisions)
    return [loan_id for *_, loan_id in decisions]


def terminate(url: str) -> None:
    """End every other connection to a database."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.fixture
def url(postgres: Postgres) -> str:
    """A ledger in PostgreSQL."""
    url = postgres.new()
    Database(url).upgrade()
    return url


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    """A seal."""
    return Seal(tmp_path / "seal")


def commit_without_response(chain: Chain, entry: Entry) -> None:
    """Commit an entry, but lose the response, and the response to the next query too."""

    def insert_alone(self: PostgresDriver, rows: Any) -> None:
        PostgresDriver.insert(self, rows)
        raise LedgerUnavailable("the response is lost")

    def newest_record(*_: object) -> Any:
        raise LedgerUnavailable("cut again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresDriver, "insert_alone", insert_alone)
        patch.setattr(PostgresDriver, "newest_record", newest_record)
        with pytest.raises(LedgerUnavailable):
            chain.append([entry])


@pytest.mark.parametrize("cut", [False, True])
def test_a_decision_is_stored_after_one_whose_response_was_lost(
    url: str, seal: Seal, cut: bool
) -> None:
    chain = Chain(Database(url), seal)
    commit_without_response(chain, entry("first"))
    if cut:
        terminate(url)
    assert chain.append([entry("second")]) == [None]
    assert stored_loans(url) == ["first", "second"]


def test_a_closed_chain_includes_a_record_whose_response_was_lost(url: str, seal: Seal) -> None:
    chain = Chain(Database(url), seal)
    commit_without_response(chain, entry("first"))
    chain.close()
    (closed,) = chains(url)
    assert (closed.closed, closed.head_seq) == (True, 1)


def test_sessions_that_began_read_only_are_not_used_again(
    url: str, seal: Seal, postgres: Postgres
) -> None:
    """Each session takes the server's setting when it begins."""
    database = Database(url)
    chain = Chain(database, seal)
    chain.append([entry("first")])
    read_only = f"ALTER DATABASE {database.url.database} SET default_transaction_read_only ="
    postgres.run(f"{read_only} on")
    terminate(url)
    for call in (lambda: chain.append([entry("second")]), chain.write_head):
        with pytest.raises(LedgerUnavailable, match="read-only"):
            call()
    with pytest.raises(LedgerUnavailable, match="the server is read-only"):
        database.expect_writable()
    for again in (database.expect_writable, chain.write_head):
        with database.reading():  # its connection returns to the pool
            pass
        postgres.run(f"{read_only} off")
        with contextlib.suppress(LedgerUnavailable):
            again()
        again()
        postgres.run(f"{read_only} on")
        database.renew()
    with database.reading():
        postgres.run(f"{read_only} off")
    assert chain.append([entry("third")]) == [None]
    assert stored_loans(url) == ["first", "third"]


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    """A proxy in front of PostgreSQL."""
    proxy = Proxy(postgres.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("back", [True, False])
def test_a_cut_connection_writes_nothing_after_its_successor(
    url: str, seal: Seal, postgres: Postgres, proxy: Proxy, back: bool
) -> None:
    """PostgreSQL notices a cut connection only when it sends a response; until then it continues.

    `back`: whether the database can be reached again at once.
    """
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(2); RETURN NEW; END'"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON decisions FOR EACH ROW "
            "WHEN (NEW.loan_id = 'slow') EXECUTE FUNCTION slow()"
        )
    chain = Chain(Database(url.replace(f":{postgres.port}/", f":{proxy.port}/")), seal)
    chain.append([entry("first")])
    results: list[object] = []
    expected = ["first"]

    def append() -> None:
        try:
            results.extend(chain.append([entry("slow")]))
        except LedgerUnavailable as error:
            results.append(type(error))

    # A busy machine may take longer to end the cut connection than the ledger waits. Then the
    # ledger refuses the decision, which is right, and the test tries again.
    for _ in range(3 if back else 1):
        results.clear()
        writing = threading.Thread(target=append)
        writing.start()
        time.sleep(0.5)  # so that all of it has been sent
        proxy.refuse = not back
        proxy.cut()
        writing.join()
        proxy.refuse = False
        chain.append([entry("last")])
        time.sleep(3)  # longer than the cut connection's insert takes
        expected += ["slow", "last"] if results == [None] else ["last"]
        assert stored_loans(url) == expected
        if results == [None]:
            break
    assert results == ([None] if back else [LedgerUnavailable])
