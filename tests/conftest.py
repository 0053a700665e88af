"""Fixtures that several rooms' tests share: books, trained stores, and a running service."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests

import untested
from peerloan.book import open_book, open_writer
from peerloan.loan import default_definition
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.training import train
from peerloan.web.http import tested_libraries
from postgres import Postgres, program

LOANS = 6_000
# Several processes at once that each use every core wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How long an example takes is the machine's business.
hypothesis.settings.register_profile(
    "peerloan", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("peerloan")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In continuous integration everything is there, so a skipped test is a failure."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def loan() -> dict[str, Any]:
    """A valid loan by PeerLoan's definition."""
    return {
        "loan_amnt": 12000,
        "int_rate": 0.2039,
        "purpose": "credit_card",
        "grade": "D",
        "annual_inc": 42000,
        "revol_util": 0.647,
        "emp_length": "10+ years",
        "dti": 14.46,
        "delinq_2yrs": 0,
        "home_ownership": "RENT",
    }


@pytest.fixture(scope="session")
def sample_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic book as CSV."""
    path = tmp_path_factory.mktemp("book") / "sample.csv"
    with open_writer(path, SCHEMA) as writer:
        for batch in batches(LOANS, seed=7):
            writer.write(batch)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_book: Path) -> Path:
    """A store with one version of each candidate and no champion; don't change it, copy it."""
    root = tmp_path_factory.mktemp("trained") / "store"
    candidates = ("additive", "basic")
    train(open_book(sample_book), default_definition(), Store(root), candidates, fast=True)
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    """A store of the test's own, with one version of each candidate and no champion."""
    shutil.copytree(trained, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def version_of(store: Store) -> Callable[[str], str]:
    """The version of a candidate in the test's store."""

    def find(candidate: str) -> str:
        return next(v for v in store.versions() if store.manifest(v).candidate == candidate)

    return find


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `peerloan …` as a process in the test's folder, on the test's store."""

    def call(
        *arguments: object, timeout: float = 120, ledger: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "peerloan", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | settings(tmp_path / "store") | {"PEERLOAN_LEDGER": ledger},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call


def settings(store: Path) -> dict[str, str]:
    """The environment of a process on a store, with tokens beside it."""
    return {"PEERLOAN_STORE": str(store), "PEERLOAN_TOKENS": str(store.parent / "tokens")}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own."""
    if program("initdb") is None:
        pytest.skip("PostgreSQL is not installed: the ledger is tested with SQLite only")
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the test's own: the test runs once with each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new()


SERVE = "peerloan serve --host {host} --port {port} --workers {workers}"
GUNICORN = (
    "gunicorn -c python:peerloan.service.gunicorn_conf -b {host}:{port} -w {workers} "
    "peerloan.service.wsgi:application()"
)

PYTHON = ("-m",)
UNTESTED = (untested.__file__,)
# The servers by name, with the installed libraries as tested ones and as others, which the service
# uses by their public interfaces alone.
SERVERS = {
    "granian": (SERVE, PYTHON),
    "granian-untested": (SERVE, UNTESTED),
    "gunicorn-untested": (GUNICORN, UNTESTED),
}


class Service:
    """A `peerloan serve` process, or another server's, and its address.

    `python` is what stands between Python's name and the server's command.
    """

    def __init__(
        self,
        store: Path,
        log: Path,
        workers: int,
        host: str = "127.0.0.1",
        server: str = SERVE,
        python: tuple[str, ...] = PYTHON,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *python),
                    *server.format(host=host, port=port, workers=workers).split(),
                ],
                env=os.environ | settings(store),
                stdout=out,
                stderr=out,
            )

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until a condition holds; fails with the server's log."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(requests.ConnectionError):
                if condition():
                    return
            time.sleep(0.05)
        pytest.fail(f"not within {seconds} s; the log:\n{self.log.read_text()}")

    def serving(self) -> str | None:
        """The version that one worker serves now, where no token is asked for; else the one that a
        worker took up last.
        """
        answer = requests.get(f"{self.url}/readyz", timeout=5)
        taken: list[str] = re.findall(r"serving (\S+) \(digest", self.log.read_text())
        if not answer.ok or not taken:
            return None
        version: str = answer.json().get("model", {}).get("version", taken[-1])
        return version

    def loaded(self) -> int:
        """How often a worker has taken or refused a champion: each does it once as it starts."""
        return len(re.findall(r"serving \S+ \(digest|champion refused", self.log.read_text()))

    def stop(self) -> None:
        """Stop the process."""
        self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture(params=["tested", "untested"])
def flask_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs once with a tested Flask, and once with another."""
    monkeypatch.setattr(tested_libraries, "_reasons", {})
    if request.param == "untested":
        monkeypatch.setattr(tested_libraries, "TESTED_VERSIONS", untested.OTHER_VERSIONS)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start `peerloan serve` on a store and wait for every worker; stopped after the test."""
    started: list[Service] = []

    def start(
        store: Store,
        workers: int = 1,
        host: str = "127.0.0.1",
        server: str = SERVE,
        python: tuple[str, ...] = PYTHON,
    ) -> Service:
        service = Service(store.root, tmp_path / "server.log", workers, host, server, python)
        started.append(service)
        service.wait_for(lambda: requests.get(f"{service.url}/readyz", timeout=5).status_code > 0)
        if store.state().champion is not None:
            service.wait_for(lambda: service.loaded() >= workers)
        return service

    yield start
    for service in started:
        service.stop()
