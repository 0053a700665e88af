"""`peerloan models delete`: only what nothing needs any more."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from peerloan.ledger import Database, Version, schema
from peerloan.ledger.challenges import Challenge, keep_challenges
from peerloan.model import Store
from peerloan.service import create_app
from peerloan.settings import Settings

Run = Callable[..., subprocess.CompletedProcess[str]]
Versions = Callable[[str], str]


def refused(run: Run, store: Store, version: str, words: str, ledger: str = "") -> None:
    done = run("models", "delete", version, ledger=ledger)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert store.load(version)


def test_a_version_that_nothing_needs_is_deleted(
    store: Store, version_of: Versions, run: Run
) -> None:
    version, other = version_of("additive"), version_of("basic")
    done = run("models", "delete", version)
    assert done.returncode == 0, done.stderr
    assert f"deleted {version}" in done.stderr
    assert store.versions() == [other]
    assert not (store.root / "versions" / version).exists()
    again = run("models", "delete", version)
    assert again.returncode == 1
    assert f"no version '{version}'" in again.stderr


def test_what_an_alias_or_a_rollback_needs_is_refused(
    store: Store, version_of: Versions, run: Run
) -> None:
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    store.challenge(second)
    refused(run, store, first, "is the champion")
    refused(run, store, second, "is the challenger")
    store.promote(second)
    refused(run, store, first, "`rollback` can return to it")
    store.rollback()
    assert run("models", "delete", second).returncode == 0, "no rollback leads there"


def test_what_a_decision_needs_is_refused_until_it_is_purged(
    store: Store,
    version_of: Versions,
    loan: dict[str, Any],
    ledger_url: str,
    run: Run,
    tmp_path: Path,
) -> None:
    database = Database(ledger_url)
    database.upgrade()
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    client = create_app(
        Settings(store.root, tmp_path / "tokens", ledger_url), on_loopback=True
    ).test_client()
    answer = client.post("/v1/predictions", json=[loan] * 3)
    assert answer.status_code == 200, answer.text
    store.promote(second)
    store.rollback()
    store.promote(second)
    store.rollback()
    challenger = Version(second, store.read(second)[1], 0.05)
    ids = [UUID(each["id"]).bytes for each in answer.json["predictions"]]  # type: ignore[index]
    keep_challenges(database, [Challenge(ids[0], challenger, 0.1)])
    refused(run, store, second, "1 decision in the ledger refers to it", ledger_url)
    refused(run, store, first, "3 decisions in the ledger refer to it", ledger_url)
    with database.writing() as connection:
        erased = dict.fromkeys(("inputs", "margin", "probability", "late", "band"))
        connection.execute(update(schema.decisions).values(erased))
        connection.execute(schema.challenges.delete())
    assert run("models", "delete", second, ledger=ledger_url).returncode == 0
    refused(run, store, first, "is the champion", ledger_url)


@pytest.mark.parametrize("url", ["postgresql://peerloan@127.0.0.1:1/ledger", "nosuch://x"])
def test_a_ledger_that_can_not_be_asked_is_a_reason(
    store: Store, version_of: Versions, run: Run, url: str
) -> None:
    version = version_of("additive")
    done = run("models", "delete", version, ledger=url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert store.load(version)
    if url.startswith("postgresql"):
        assert "the ledger can't be asked" in done.stderr
