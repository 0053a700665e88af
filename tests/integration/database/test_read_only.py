"""A ledger that can't be written to says so before anybody asks, and can be read all the same."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.commands import Run
from helpers.ledgers import append, record
from helpers.postgres import Postgres
from helpers.stores import VersionOf
from peerloan.database import Database, LedgerError
from peerloan.ledger import Chain, Seal
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.uuid7 import text as id_text


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[bool], Path]]:
    """A file system of the test's own, mounted so that it can be written to, or only read."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], check=True)

    def remount(writable: bool) -> Path:
        how = f"remount,{'rw' if writable else 'ro'}"
        subprocess.run(["mount", "-o", how, folder], check=True)
        return folder

    yield remount
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_copy_on_a_disk_that_is_read_only_is_read_and_never_written(
    run: Run,
    store: Store,
    version_of: VersionOf,
    sample_book: Path,
    tmp_path: Path,
    mounted: Callable[[bool], Path],
) -> None:
    store.promote(version_of("additive"))
    book = tmp_path / "book.csv"
    book.write_text("".join(sample_book.read_text().splitlines(keepends=True)[:301]))
    kept = f"sqlite:///{tmp_path}/kept/ledger.db"
    done = run("score", book, "-o", tmp_path / "out.csv", "--record", ledger=kept)
    assert done.returncode == 0, done.stderr
    folder = mounted(True)
    shutil.copy(tmp_path / "kept" / "ledger.db", folder / "copy #1.db")
    mounted(False)
    copy = f"sqlite:///{folder}/copy #1.db"
    verified = run("ledger", "verify", ledger=copy)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("300 records in 1 chain")
    assert verified.stdout.endswith(": all as they were written\n")
    replayed = run("replay", ledger=copy)
    assert replayed.returncode == 0, replayed.stderr
    table = tmp_path / "table.parquet"
    exported = run("ledger", "export", "-o", table, ledger=copy)
    assert exported.stdout == f"{table}: 300 decisions, 0 of them with an outcome\n"
    figures = run("monitor", ledger=copy)
    assert (figures.returncode, figures.stdout.count("300 loans by")) == (0, 1), figures.stderr
    refused = run("score", book, "-o", tmp_path / "again.csv", "--record", ledger=copy)
    assert refused.returncode == 1
    why = "can't be written to: its file system is mounted read-only"
    assert f"{folder}/copy #1.db: {why}" in refused.stderr


def test_a_server_that_is_read_only_is_read(
    run: Run,
    store: Store,
    version_of: VersionOf,
    sample_book: Path,
    tmp_path: Path,
    postgres: Postgres,
) -> None:
    """As a standby is; what was not counted before is named."""
    store.promote(version_of("additive"))
    book = tmp_path / "book.csv"
    book.write_text("".join(sample_book.read_text().splitlines(keepends=True)[:301]))
    url = postgres.new()
    Database(url).upgrade()
    assert run("score", book, "-o", tmp_path / "out.csv", "--record", ledger=url).returncode == 0
    assert "300 loans by" in run("monitor", ledger=url).stdout
    set_read_only(postgres, url, writable=False)
    verified = run("ledger", "verify", ledger=url)
    assert (verified.returncode, verified.stdout[:11]) == (0, "300 records"), verified.stderr
    figures = run("monitor", ledger=url)
    assert (figures.returncode, "300 loans by" in figures.stdout) == (0, True), figures.stdout
    assert "the server is read-only" in figures.stderr
    refused = run("score", book, "-o", tmp_path / "third.csv", "--record", ledger=url)
    assert refused.returncode == 1
    assert "read-only" in refused.stderr


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    """A ledger's file with one decision, in a folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="peerloan-ledger-", dir="/tmp"))
    database = Database(f"sqlite:///{folder}/ledger.db")
    database.upgrade()
    chain = Chain(database, Seal(tmp_path / "seal"))
    append(chain, [record()])
    chain.close()
    database.engine.dispose()
    Path(f"{database.file}.lock").unlink()
    folder.chmod(0o755)
    assert [each.name for each in folder.iterdir()] == ["ledger.db"]
    yield database.file
    shutil.rmtree(folder)


def as_nobody(work: Callable[[], str]) -> str:
    """What work says that is done in another process, by a user whom modes hold back."""

    def child() -> None:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        try:
            sending.send(work())
        except LedgerError as error:
            sending.send(f"{type(error).__name__}: {error}")

    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    with contextlib.closing(receiving):
        assert receiving.poll(60), "it says something"
        answer = str(receiving.recv())
    process.join(60)
    return answer


def written(file: Path) -> str:
    """What comes of writing to a ledger."""
    with Database(f"sqlite:///{file}").writing() as connection:
        connection.exec_driver_sql("DELETE FROM challenges")
    return "written"


def read(file: Path) -> str:
    """What comes of reading it."""
    with Database(f"sqlite:///{file}").reading() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar()
    return f"{count} decisions"


@pytest.mark.parametrize(
    ("modes", "why"),
    [
        ((0o444, 0o777), "the file is read-only for this user (mode 0444)"),
        ((0o444, 0o555), "the file is read-only for this user (mode 0444)"),
        ((0o666, 0o555), "its folder {} is not writable for this user (mode 0555), and SQLite"),
    ],
)
def test_why_it_can_not_be_written_to_is_told(
    ledger: Path, modes: tuple[int, int], why: str
) -> None:
    ledger.chmod(modes[0])
    ledger.parent.chmod(modes[1])
    answer = as_nobody(lambda: written(ledger))
    told = f"LedgerReadOnly: {ledger}: can't be written to: {why.format(ledger.parent)}"
    assert answer.startswith(told)
    assert as_nobody(lambda: read(ledger)) == "1 decisions"
    assert [each.name for each in ledger.parent.iterdir()] == ["ledger.db"], "nothing is left there"


def test_what_belongs_to_another_user_and_is_open_to_all_is_used_with_a_warning(
    ledger: Path,
) -> None:
    """As on a volume whose modes can't be changed: nothing stops for that, but the log says it."""
    ledger.chmod(0o666)
    ledger.parent.chmod(0o777)

    def written_with_its_log() -> str:
        with io.StringIO() as log:
            handler = logging.StreamHandler(log)
            logging.getLogger("peerloan").addHandler(handler)
            return f"{written(ledger)}\n{written(ledger)}\n{log.getvalue()}"

    answer = as_nobody(written_with_its_log)
    assert answer.startswith("written\nwritten\n")
    open_to_others = "other users of this machine have access (mode 0666)"
    assert answer.count(f"{ledger}: {open_to_others}") == 1
    assert f"its owner should run: chmod go= {ledger}\n" in answer


def test_a_log_that_was_not_copied_with_its_index_is_not_passed_over(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as writing:
        writing.execute("DELETE FROM decisions")
        writing.commit()
        log = ledger.with_name("ledger.db-wal")
        shutil.copy(log, ledger.with_name("log"))
        shutil.copy(ledger, ledger.with_name("before"))
    shutil.copy(ledger.with_name("log"), log)
    shutil.copy(ledger.with_name("before"), ledger)
    ledger.chmod(0o444)
    ledger.parent.chmod(0o555)
    answer = as_nobody(lambda: read(ledger))
    assert answer.startswith(f"LedgerUnavailable: {ledger}: can't be read without ledger.db-wal")
    assert answer.endswith("copy both files to a folder that is writable")


def test_who_may_only_read_sees_what_a_writer_keeps(ledger: Path) -> None:
    ledger.chmod(0o644)
    with contextlib.closing(sqlite3.connect(ledger)) as writing:
        writing.execute("INSERT INTO challenges VALUES (x'00', 1, 0.5, 0.0)")
        writing.commit()

        def challenges() -> str:
            with Database(f"sqlite:///{ledger}").reading() as connection:
                return str(connection.exec_driver_sql("SELECT * FROM challenges").all())

        assert as_nobody(challenges) == "[(b'\\x00', 1, 0.5, 0.0)]"


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_whole(ledger: Path) -> None:
    ledger.chmod(0o444)

    def reading() -> str:
        with Database(f"sqlite:///{ledger}").reading() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar()
            waiting.send(None)
            assert going.poll(60)
        return "whole"

    begun, waiting = multiprocessing.Pipe(duplex=False)
    going, go_on = multiprocessing.Pipe(duplex=False)

    def change() -> None:
        begun.recv()
        os.utime(ledger, (0, 0))
        go_on.send(None)

    changing = multiprocessing.get_context("fork").Process(target=change)
    changing.start()
    assert as_nobody(reading).endswith("was changed while it was read; try again")
    changing.join(60)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_readiness_says_so_before_the_first_request(
    request: pytest.FixtureRequest,
    store: Store,
    version_of: VersionOf,
    tmp_path: Path,
    loan: dict[str, Any],
    kind: str,
) -> None:
    """And once it can be written to again, without a request or a restart."""
    store.promote(version_of("additive"))
    switch: Callable[[bool], object]
    if kind == "sqlite":
        mounted: Callable[[bool], Path] = request.getfixturevalue("mounted")
        url, switch = f"sqlite:///{mounted(True)}/ledger.db", mounted
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new()
        switch = partial(set_read_only, postgres, url)
    database = Database(url)
    database.upgrade()
    database.renew()
    switch(False)
    chosen = Settings(store.root, tmp_path / "tokens", url)
    client = create_app(chosen, on_loopback=True).test_client()
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["ledger"]) == (200, "unavailable")  # type: ignore[index]
    refused = client.post("/v1/predictions", json=loan)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    outcome = {"outcomes": [{"id": id_text(bytes(16)), "is_late": 1}]}
    assert client.post("/v1/outcomes", json=outcome).status_code == 503
    switch(True)
    wait_for(lambda: ledger_of(client) == "available")
    assert client.post("/v1/predictions", json=loan).status_code == 200
    if kind == "postgresql":  # a file that is open can't be taken
        switch(False)
        wait_for(lambda: ledger_of(client) == "unavailable")
        switch(True)
        wait_for(lambda: ledger_of(client) == "available")


def set_read_only(postgres: Postgres, url: str, writable: bool) -> None:
    """Have every session of a database take changes or none, and those that are there end."""
    name = Database(url).url.database
    postgres.run(f"ALTER DATABASE {name} SET default_transaction_read_only = {not writable}")
    ended = f"SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE datname = '{name}'"
    if not writable:  # those that began so stay so
        postgres.run(ended)


def ledger_of(client: FlaskClient) -> str:
    """What readiness says of the ledger."""
    answer = client.get("/readyz").json
    assert answer is not None
    return str(answer["ledger"])


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.1)
