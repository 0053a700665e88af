"""A writer's chain goes on through whatever becomes of its connection and its process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import delete, insert, select

from helpers.service import Serve
from helpers.stores import VersionOf
from peerloan.database import Database, LedgerError, LedgerUnavailable, tables
from peerloan.ledger import (
    Chain,
    Entry,
    Key,
    KeyOfOtherRequest,
    Record,
    RepeatedRequest,
    Seal,
    Version,
)
from peerloan.ledger.queries import stream_decisions
from peerloan.ledger.write.postgres_driver import Postgres
from peerloan.registry import Store
from peerloan.uuid7 import IdGenerator

IDS = IdGenerator()
VERSION = Version("v1", "d" * 64, 0.05)


@pytest.fixture
def chain(database: Database, tmp_path: Path) -> Chain:
    return Chain(database, Seal(tmp_path / "seal"))


def record(loan_id: str = "L1", version: Version = VERSION) -> Record:
    values = ("api", "tests", "r" * 32, None, loan_id, '{"ä": "\\u0000\\\\\\n"}', 0.1, 0.2, True, 1)
    return Record(IDS.new(), version, *values, None, None)


def kept(database: Database) -> list[tuple[int, int, bytes]]:
    table = tables.decisions
    with database.reading() as connection:
        rows = select(table.c.chain, table.c.seq, table.c.id).order_by(table.c.chain, table.c.seq)
        return [(chain, seq, made.bytes) for chain, seq, made in connection.execute(rows)]


def test_entries_are_kept_together_and_in_order(chain: Chain, database: Database) -> None:
    records = [record() for _ in range(150)]
    assert chain.append([Entry(records[:3]), Entry(records[3:])]) == [None, None]
    assert kept(database) == [(1, i, each.id) for i, each in enumerate(records, 1)]


def test_a_key_is_taken_once(chain: Chain, database: Database, tmp_path: Path) -> None:
    first, other = record(), Chain(database, Seal(tmp_path / "seal"))
    key = Key.of("me", "k", b"request")
    assert chain.append([Entry([first], key)]) == [None]
    again = other.append([Entry([record()], key), Entry([record()])])
    assert again == [RepeatedRequest([first.id]), None]
    assert chain.append([Entry([record()], Key.of("me", "k", b"other"))]) == [KeyOfOtherRequest()]
    assert chain.append([Entry([record()], Key.of("you", "k", b"request"))]) == [None]
    assert [(number, seq) for number, seq, _ in kept(database)] == [(1, 1), (1, 2), (2, 1)]


def test_an_opening_names_the_heads_before_it(database: Database, tmp_path: Path) -> None:
    seal = Seal(tmp_path / "seal")
    closed, crashed = Chain(database, seal), Chain(database, seal)
    closed.append([Entry([record()])])
    closed.close()
    crashed.append([Entry([record(), record()])])  # it never writes its head down
    third = Chain(database, seal)
    # Itself, too: so it says that each of its heads has a MAC.
    ends = [[1, 1, newest(database, 1)], [2, 2, newest(database, 2)]]
    assert named(database, 3) == [*ends, [3, 0, ""]]
    third.close()
    Chain(database, seal)
    # A closed chain is named once, an open one in each opening.
    assert [each[:2] for each in named(database, 4)] == [[2, 2], [3, 0], [4, 0]]
    assert [(each.chain, each.seq, each.closed) for each in seal.files.read_all().valid] == [
        (1, 1, True),
        (2, 0, False),
        (3, 0, True),
        (4, 0, False),
    ]


def named(database: Database, number: int) -> list[list[Any]]:
    """What the opening of a chain names."""
    with database.reading() as connection:
        heads = select(tables.chains.c.heads).where(tables.chains.c.number == number)
        found: list[list[Any]] = json.loads(connection.execute(heads).scalar_one())
        return found


def newest(database: Database, number: int) -> str:
    """The MAC of a chain's newest record."""
    table = tables.decisions
    with database.reading() as connection:
        macs = select(table.c.mac).where(table.c.chain == number).order_by(table.c.seq.desc())
        mac: bytes = connection.execute(macs.limit(1)).scalar_one()
        return mac.hex()


def test_a_commit_whose_answer_got_lost_is_not_done_twice(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgres.new())
    database.upgrade()
    chain = Chain(database, Seal(tmp_path / "seal"))
    chain.append([Entry([record()])])
    insert_alone, commit = Postgres.insert_alone, Postgres.commit
    lost: list[bool] = []

    def lose(do: Callable[..., object]) -> Callable[..., object]:
        def done(self: Postgres, *arguments: Any) -> object:
            result = do(self, *arguments)
            if not lost:
                lost.append(True)
                raise LedgerUnavailable("the connection was cut")
            return result

        return done

    monkeypatch.setattr(Postgres, "insert_alone", lose(insert_alone))
    assert chain.append([Entry([record()]), Entry([record()])]) == [None, None]
    lost.clear()
    monkeypatch.setattr(Postgres, "commit", lose(commit))
    key = Key.of("me", "k", b"request")
    assert chain.append([Entry([record()], key), Entry([record()])]) == [None, None]
    assert chain.append([Entry([record()])]) == [None]
    assert lost == [True]
    assert [seq for _, seq, _ in kept(database)] == [1, 2, 3, 4, 5, 6]


def test_a_transaction_that_was_not_done_is_done_again(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgres.new())
    database.upgrade()
    chain = Chain(database, Seal(tmp_path / "seal"))
    with database.writing() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert chain.append([Entry([record()])]) == [None]
    assert [seq for _, seq, _ in kept(database)] == [1]


def test_requests_that_wait_for_a_commit_keep_no_thread(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    loan: dict[str, Any],
    tmp_path: Path,
) -> None:
    store.promote(version_of("additive"))
    service = serve(store)
    url = f"{service.url}/v1/predictions"
    assert requests.post(url, json=loan, timeout=10).status_code == 200
    database = Database(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}")
    answers: list[int] = []

    def ask() -> None:
        answers.append(requests.post(url, json=loan, timeout=30).status_code)

    threads = [threading.Thread(target=ask) for _ in range(60)]  # twice as many as threads
    with database.writing() as connection:
        connection.execute(
            insert(tables.aggregates).values(
                month="x", version=0, source="", band=0, outcome=0, decisions=0, probabilities=0
            )
        )
        for thread in threads:
            thread.start()
        health = requests.get(f"{service.url}/healthz", timeout=3)
        assert health.status_code == 200
        assert answers == [], "they wait for the lock"
    for thread in threads:
        thread.join()
    assert answers == [200] * 60


def test_a_chain_whose_opening_failed_can_be_opened_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise LedgerUnavailable("not now")

    seal = Seal(tmp_path / "seal")
    with monkeypatch.context() as patch:
        patch.setattr("peerloan.ledger.write.chain.open_chain", fail)
        for _ in range(3):
            with pytest.raises(LedgerUnavailable):
                Chain(database, seal)
    assert Chain(database, seal).append([Entry([record()])]) == [None]


def test_a_chain_is_not_opened_where_its_head_can_not_stand(
    database: Database, tmp_path: Path
) -> None:
    seal = Seal(tmp_path / "seal")
    heads = tmp_path / "seal" / "heads"
    heads.rmdir()
    heads.write_text("in the way")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="the chain's head can't be written"):
            Chain(database, seal)
    with database.reading() as connection:
        assert not connection.execute(select(tables.chains)).all()
    heads.unlink()
    heads.mkdir()
    Chain(database, seal).close()
    assert [head.closed for head in seal.files.read_all().valid] == [True]


def test_a_version_that_is_gone_from_the_ledger_is_named(chain: Chain, database: Database) -> None:
    chain.append([Entry([record()])])
    with database.writing() as connection:
        connection.execute(delete(tables.versions))
    with pytest.raises(LedgerError, match="version with the number 1 is missing"):
        list(stream_decisions(database))
