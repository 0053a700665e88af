"""The seal's key is made with a new ledger and never replaced: one that has lost it says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import select, update

from helpers.commands import Run
from helpers.ledgers import DAY_MS, Ledger, append, now_ms, record
from helpers.service import Serve
from helpers.stores import VersionOf
from peerloan.database import Database, LedgerError, tables
from peerloan.database.errors import LostSeal
from peerloan.ledger import Chain, Seal
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.retention import purge
from peerloan.ledger.seal_ownership import open_seal
from peerloan.registry import Store


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    """A ledger with a closed chain of two old records."""
    made = Ledger(ledger_url, tmp_path)
    chain = made.chain()
    append(chain, [record(now_ms() - 9 * DAY_MS) for _ in range(2)])
    chain.close()
    return made


def test_a_service_whose_key_is_lost_keeps_nothing_until_it_is_back(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    loan: dict[str, Any],
    tmp_path: Path,
) -> None:
    store.promote(version_of("additive"))
    ledger = Ledger(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}", tmp_path)
    append(ledger.chain(), [record()])
    key = ledger.seal_folder / "key"
    kept = key.rename(tmp_path / "key")
    service = serve(store)

    def ask() -> int:
        return requests.post(f"{service.url}/v1/predictions", json=loan, timeout=20).status_code

    def ready() -> Any:
        return requests.get(f"{service.url}/readyz", timeout=5).json()["ledger"]

    service.wait_for(lambda: ready() == "unavailable")
    assert ask() == 503
    log = service.log.read_text()
    assert f"the ledger is unavailable: {key}: the seal's key is missing" in log
    assert "restore it from its backup" in log
    assert not key.exists()
    kept.rename(key)
    service.wait_for(lambda: ready() == "available")
    assert ask() == 200
    assert verify(ledger.database, ledger.seal).findings.shown() == []


@pytest.mark.parametrize("heads", [True, False], ids=["heads left", "whole folder gone"])
def test_a_book_is_not_recorded_with_another_key(
    run: Run,
    store: Store,
    sample_book: Path,
    version_of: VersionOf,
    heads: bool,
    tmp_path: Path,
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}", tmp_path)
    append(ledger.chain(), [record()])
    if heads:
        (ledger.seal_folder / "key").unlink()
    else:
        shutil.rmtree(ledger.seal_folder)
    store.promote(version_of("additive"))
    done = run("score", sample_book, "-o", "out.csv", "--record", ledger=ledger.url)
    assert done.returncode == 1
    assert "the seal's key is missing" in done.stderr
    assert "For a new ledger, set a new database" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (ledger.seal_folder / "key").exists()
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_of_heads_gets_no_key(ledger: Ledger) -> None:
    (ledger.seal_folder / "key").unlink()
    with pytest.raises(LostSeal, match="contains heads of its chains"):
        Seal(ledger.seal_folder)
    assert not (ledger.seal_folder / "key").exists()


def test_a_ledger_that_has_chains_gets_no_key(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LostSeal, match="contains sealed records"):
        open_seal(tmp_path / "nothing", ledger.database)
    assert not (tmp_path / "nothing").exists()


def test_a_new_ledger_gets_a_key_and_keeps_it(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    database.upgrade()
    made = open_seal(tmp_path / "seal", database)
    Chain(database, made).close()
    assert open_seal(tmp_path / "seal", database).key == made.key


def test_another_key_seals_nothing(ledger: Ledger, tmp_path: Path) -> None:
    other = Seal(tmp_path / "other")
    with pytest.raises(LostSeal, match="this key is not the one"):
        Chain(ledger.database, other)
    with pytest.raises(LostSeal, match="this key is not the one"):
        open_seal(tmp_path / "other", ledger.database)
    with pytest.raises(LostSeal, match="this key is not the one"):
        purge(ledger.database, other, now_ms() - 2 * DAY_MS, "somebody")
    with ledger.database.reading() as connection:
        assert len(connection.execute(select(tables.chains.c.number)).all()) == 1
        assert connection.execute(select(tables.purges)).all() == []
    assert verify(ledger.database, ledger.seal).findings.shown() == []


def test_an_edited_opening_stops_no_writer(ledger: Ledger) -> None:
    ledger.chain().close()
    with ledger.database.writing() as connection:
        newest = update(tables.chains).where(tables.chains.c.number == 2)
        connection.execute(newest.values(release="0.0.9"))
    chain = ledger.chain()
    append(chain, [record()])
    chain.close()
    assert dict(verify(ledger.database, ledger.seal).findings.totals) == {"edited chain": 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "expected 32 bytes"),
        (b"xy" * 32, "non-hexadecimal"),
        (b"\xff" * 64, "can't be read"),
        (b"0" * 100_000_000, "expected at most"),
    ],
    ids=["empty", "no digits", "no text", "large"],
)
def test_a_key_that_is_none_is_named(run: Run, tmp_path: Path, content: bytes, why: str) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path)
    (ledger.seal_folder / "key").write_bytes(content)
    done = run("ledger", "verify", ledger=ledger.url)
    assert done.returncode == 1
    assert "the seal's key can't be read" in done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(LedgerError, match="can't be read"):
        Seal(ledger.seal_folder)
