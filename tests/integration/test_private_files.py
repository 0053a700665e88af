"""What holds loans or keys is its owner's alone, whatever was there and whatever the umask."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.service import Serve, settings
from helpers.stores import VersionOf
from peerloan.registry import Store

CLOSED = "other users of this machine had access"


@pytest.fixture
def open_run(tmp_path: Path) -> Callable[..., str]:
    """Run `peerloan …` under a umask that takes nothing; gives what it said on stderr."""

    def call(*arguments: object, exit_code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "peerloan", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | settings(tmp_path / "store") | {"PEERLOAN_LEDGER": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            umask=0,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == exit_code, done.stderr
        return done.stderr

    return call


@pytest.fixture
def book(store: Store, version_of: VersionOf, sample_book: Path, tmp_path: Path) -> Path:
    """A book, and a store that has a champion."""
    store.promote(version_of("additive"))
    path = tmp_path / "book.csv"
    lines = sample_book.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:101]))
    return path


def modes(folder: Path) -> dict[str, str]:
    """The modes of a folder and of all that is in it."""
    return {
        str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):04o}"
        for path in (folder, *folder.rglob("*"))
    }


def expect_closed(folder: Path) -> None:
    """Nobody but the owner may do anything with a folder, and with anything in it."""
    found = modes(folder)
    assert len(found) > 1
    for name, mode in found.items():
        assert mode == ("0700" if (folder / name).is_dir() else "0600"), name


@pytest.mark.parametrize("before", ["no folders", "open folders"])
def test_ledger_seal_and_books_are_their_owners_alone(
    open_run: Callable[..., str], book: Path, tmp_path: Path, before: str
) -> None:
    if before == "open folders":
        for name in ("peerloan-ledger", "peerloan-seal"):
            (tmp_path / name).mkdir()
            (tmp_path / name).chmod(0o777)

    with book.open("a") as rows:
        rows.write(",".join(["wrong"] * (book.read_text().partition("\n")[0].count(",") + 1)))
    open_run("score", book, "-o", tmp_path / "scored.csv", "--record", exit_code=1)
    for name in ("table.csv", "table.csv.gz", "table.parquet"):
        open_run("ledger", "export", "-o", tmp_path / name)

    expect_closed(tmp_path / "peerloan-ledger")
    expect_closed(tmp_path / "peerloan-seal")
    for name in ("scored.csv", "scored.csv.rejects", "table.csv", "table.csv.gz", "table.parquet"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name


def test_a_table_that_is_written_again_is_closed(
    open_run: Callable[..., str], book: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scored.csv"
    out.touch(0o644)

    open_run("score", book, "-o", out, "--overwrite")

    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_what_a_release_before_left_open_is_closed_at_the_start_and_said_once(
    open_run: Callable[..., str], book: Path, tmp_path: Path
) -> None:
    open_run("score", book, "-o", tmp_path / "scored.csv", "--record")
    ledger, seal = tmp_path / "peerloan-ledger", tmp_path / "peerloan-seal"
    with contextlib.closing(sqlite3.connect(ledger / "ledger.db")) as connection:
        # A log and its index, which SQLite would have removed.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE other (number INTEGER)")
        connection.commit()
        for folder in (ledger, seal):
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)

        said = open_run("ledger", "verify")

        expect_closed(ledger)
        expect_closed(seal)
    for name in ("peerloan-ledger/ledger.db", "peerloan-ledger/ledger.db-wal", "peerloan-seal/key"):
        assert said.count(f"{name}: {CLOSED}") == 1, said
    assert CLOSED not in open_run("ledger", "verify")


def test_a_service_goes_on_with_an_open_ledger_and_closes_it(
    serve: Serve,
    book: Path,
    store: Store,
    loan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """An upgrade from a release that left it open stops nothing."""
    monkeypatch.delenv("PEERLOAN_LEDGER", raising=False)
    ledger = tmp_path / "peerloan-ledger" / "ledger.db"
    for start in range(2):
        service = serve(store, workers=2)
        answer = requests.post(f"{service.url}/v1/predictions", json=loan, timeout=20)
        assert answer.status_code == 200, answer.text
        expect_closed(ledger.parent)
        assert service.log.read_text().count(f"{ledger}: {CLOSED}") == start
        service.stop()
        ledger.chmod(0o644)


def test_a_folder_that_holds_something_else_too_is_left_as_it_is(
    open_run: Callable[..., str], book: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "peerloan-ledger"
    folder.mkdir(0o755)
    (folder / "notes.txt").write_text("not the ledger's")
    # As somebody may put it there who wants to have the notes closed.
    (folder / "ledger.db-link").symlink_to("notes.txt")
    before = modes(folder)

    open_run("score", book, "-o", tmp_path / "scored.csv", "--record")

    assert {name: modes(folder)[name] for name in before} == before
    assert modes(folder)["ledger.db"] == "0600"


def test_a_seal_s_folder_that_holds_something_else_keeps_its_mode(
    open_run: Callable[..., str], book: Path, tmp_path: Path
) -> None:
    seal = tmp_path / "peerloan-seal"
    seal.mkdir(mode=0o755)
    (seal / "other").mkdir(mode=0o755)
    open_run("score", book, "-o", tmp_path / "scored.csv", "--record")
    found = modes(seal)
    assert (found["."], found["other"], found["key"], found["heads"]) == (
        *("0755", "0755"),
        *("0600", "0700"),
    )
