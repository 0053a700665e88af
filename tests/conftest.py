"""Fixtures of all tests: books, trained stores, ledgers, commands, and a running service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests

from helpers import untested
from helpers.apps import close_apps, count_open
from helpers.commands import Call, Done, Run
from helpers.postgres import Postgres
from helpers.programs import describe_skipped, require
from helpers.service import PYTHON, SERVE, Serve, Service, settings
from helpers.shared import shared_folder
from helpers.stores import VersionOf, find_version
from peerloan.book import open_book, open_writer
from peerloan.cli import main
from peerloan.database import Database
from peerloan.loan import default_definition
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.web.http import tested_libraries
from peerloan.web.http.flask_application import find_lean_flask

LOANS = 6_000
# Several processes that each use every core would slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Examples have no deadline: it would depend on the machine. `make verify` uses "ci-long".
hypothesis.settings.register_profile(
    "short", max_examples=25, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "ci-long", hypothesis.settings.get_profile("short"), max_examples=500
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `longer`."""
    config.addinivalue_line(
        "markers", "longer: not in `make test`, but in `make test-all`, which runs nothing else"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that starts a server as `longer`."""
    for item in items:
        if {"postgres", "serve"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.longer)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use one worker more than cores: many tests wait for a clock or another process."""
    return (os.cpu_count() or 1) + 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print one line: what was skipped, and what to install for it."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(describe_skipped(report.longrepr[2] for report in skipped))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a test was skipped in continuous integration, where everything is installed."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="module", autouse=True)
def _module_apps() -> Iterator[None]:
    """Close the applications that a module's fixtures created."""
    opened = count_open()
    yield
    close_apps(opened)


@pytest.fixture(autouse=True)
def _test_apps(_module_apps: None) -> Iterator[None]:
    """Close the applications that a test created."""
    opened = count_open()
    yield
    close_apps(opened)


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

    def make(folder: Path) -> None:
        with open_writer(folder / "sample.csv", SCHEMA) as writer:
            for batch in batches(LOANS, seed=7):
                writer.write(batch)

    return shared_folder(tmp_path_factory, "book", make) / "sample.csv"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_book: Path) -> Path:
    """A store with one version of each candidate and no champion; tests copy it."""

    def make(folder: Path) -> None:
        from peerloan.training import train  # whose libraries take seconds to import

        store = Store(folder / "store")
        candidates = ("additive", "basic")
        train(open_book(sample_book), default_definition(), store, candidates, fast=True)

    return shared_folder(tmp_path_factory, "trained", make) / "store"


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    """The test's store, with one version of each candidate and no champion."""
    shutil.copytree(trained, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def version_of(store: Store) -> VersionOf:
    """The version of a candidate in the test's store."""

    def find(candidate: str) -> str:
        return find_version(store, candidate)

    return find


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `peerloan …` as a process in the test's folder, on the test's store.

    The timeout is long because a busy machine may need minutes for a command.
    """

    def call(
        *arguments: object, timeout: float = 600, ledger: str = ""
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


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run `peerloan …` in the test's folder, on the test's store, within this process."""
    monkeypatch.chdir(tmp_path)
    for name, value in settings(tmp_path / "store").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PEERLOAN_CONFIG", raising=False)

    def in_process(*arguments: object) -> Done:
        code: object = 0
        try:
            main(list(map(str, arguments)))
        except SystemExit as stop:
            code = stop.code
        assert isinstance(code, int)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Done(code, printed.out, printed.err)

    return in_process


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests."""
    require("PostgreSQL", "initdb", "postgres")
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.longer)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; the test runs once with SQLite and once with PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new()


@pytest.fixture
def database(ledger_url: str) -> Database:
    """An empty, upgraded ledger; the test runs once with each kind of database."""
    database = Database(ledger_url)
    database.upgrade()
    return database


@pytest.fixture(params=["tested", "untested"])
def flask_version(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the test once with a tested Flask, and once with an untested one."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "untested":
            patch.setattr(tested_libraries, "TESTED_VERSIONS", untested.OTHER_VERSIONS)
        yield
    find_lean_flask()  # Flask counts as tested again in the rest of this process


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
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
