"""What a writer's chain makes of connections that end in the middle of something."""

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
from peerloan.ledger.write.postgres_driver import Postgres as Backend
from peerloan.uuid7 import IdGenerator

_ids = IdGenerator()


def entry(loan_id: str) -> Entry:
    """A decision on a loan."""
    version = Version("first-000000000000", "0" * 64, 0.02)
    values = (1.0, 0.01, False, 1, "[]", None)
    return Entry([Record(_ids.new(), version, "api", "", "test", None, loan_id, "{}", *values)])


def kept(url: str) -> list[str]:
    """The loans that are in the ledger, whose chains are whole."""
    found = list(rows(url))
    check_chains(found)
    return [loan_id for *_, loan_id in found]


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
    made = postgres.new()
    Database(made).upgrade()
    return made


@pytest.fixture
def seal(tmp_path: Path) -> Seal:
    """A seal."""
    return Seal(tmp_path / "seal")


def lose_an_answer(chain: Chain, which: Entry) -> None:
    """Have a commit done whose answer does not come, and then no other answer either."""

    def insert(self: Backend, of_table: Any) -> None:
        Backend.insert(self, of_table)
        raise LedgerUnavailable("the answer is lost")

    def last(*_: object) -> Any:
        raise LedgerUnavailable("cut again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backend, "insert_alone", insert)
        patch.setattr(Backend, "last", last)
        with pytest.raises(LedgerUnavailable):
            chain.append([which])


@pytest.mark.parametrize("cut", [False, True])
def test_the_next_decision_is_not_taken_for_one_whose_answer_was_lost(
    url: str, seal: Seal, cut: bool
) -> None:
    chain = Chain(Database(url), seal)
    lose_an_answer(chain, entry("first"))
    if cut:
        terminate(url)
    assert chain.append([entry("second")]) == [None]
    assert kept(url) == ["first", "second"]


def test_a_chain_is_closed_at_its_true_end(url: str, seal: Seal) -> None:
    chain = Chain(Database(url), seal)
    lose_an_answer(chain, entry("first"))
    chain.close()
    (closed,) = chains(url)
    assert (closed.closed, closed.head_seq) == (True, 1)


def test_sessions_that_began_read_only_are_not_kept(
    url: str, seal: Seal, postgres: Postgres
) -> None:
    """A server that was told to take no changes for a while tells each session as it begins."""
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
        with database.reading():  # which is kept for who asks next
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
    assert kept(url) == ["first", "third"]


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    """A proxy in front of PostgreSQL."""
    made = Proxy(postgres.port)
    yield made
    made.close()


@pytest.mark.parametrize("back", [True, False])
def test_what_a_cut_connection_still_does_is_no_second_writer(
    url: str, seal: Seal, postgres: Postgres, proxy: Proxy, back: bool
) -> None:
    """PostgreSQL notices that a connection was cut only once it has something to say; until then
    it goes on. `back`: whether the database can be reached again at once.
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
    told: list[object] = []
    expected = ["first"]

    def append() -> None:
        try:
            told.extend(chain.append([entry("slow")]))
        except LedgerUnavailable as error:
            told.append(type(error))

    # A busy machine may take longer to end what was cut than the ledger waits, which refuses the
    # decision then: that is as it should be, and is no answer to what is asked here.
    for _ in range(3 if back else 1):
        told.clear()
        writing = threading.Thread(target=append)
        writing.start()
        time.sleep(0.5)  # so that all of it has been sent
        proxy.refuse = not back
        proxy.cut()
        writing.join()
        proxy.refuse = False
        chain.append([entry("last")])
        time.sleep(3)  # what goes on would be done
        expected += ["slow", "last"] if told == [None] else ["last"]
        assert kept(url) == expected
        if told == [None]:
            break
    assert told == ([None] if back else [LedgerUnavailable])
