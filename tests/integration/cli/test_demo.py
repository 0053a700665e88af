"""`peerloan demo` in a folder with an earlier demonstration, and on a taken port."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from helpers.commands import Run
from helpers.ports import free_port
from peerloan.cli import main
from peerloan.cli.commands import bootstrap
from peerloan.database import Database
from peerloan.registry import Store

pytestmark = pytest.mark.longer


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def demo(run: Run, port: int) -> Iterator[Run]:
    """Run the demonstration on a free port; it is stopped after the test."""
    yield lambda *options: run("demo", "--port", port, *options)
    run("demo", "--stop")


def test_a_champion_that_a_person_promoted_stays(
    demo: Run, trained: Path, tmp_path: Path, port: int
) -> None:
    store = Store(tmp_path / "demo" / "store")
    shutil.copytree(trained, store.root)
    mine = store.versions()[0]
    store.promote(mine, "mine")
    for restarted in (False, True):
        done = demo()
        assert done.returncode == 0, done.stderr
        assert ("restarting the running server" in done.stderr) is restarted
        served = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10).json()
        assert served["model"]["version"] == mine
        # Also the folder, which an earlier release left open, once it is the demonstration's.
        for name in ("server.log", "ledger", "seal", *(["."] if restarted else [])):
            assert (store.root.parent / name).stat().st_mode & 0o077 == 0, name
    assert [state.champion for state in store.history()] == [mine]
    assert len(store.versions()) == len(Store(trained).versions())
    for message in ("stopped", "the demonstration's server is not running"):
        assert message in demo("--stop").stderr
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10)


def test_the_ledger_of_an_earlier_release_is_upgraded(
    demo: Run, trained: Path, tmp_path: Path, port: int
) -> None:
    store = Store(tmp_path / "demo" / "store")
    shutil.copytree(trained, store.root)
    store.promote(store.versions()[0], "mine")
    file = tmp_path / "demo" / "ledger" / "ledger.db"
    Database(f"sqlite:///{file}").upgrade()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("ALTER TABLE challenges DROP COLUMN margin")
        connection.execute("DELETE FROM migrations WHERE number = 3")
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
    done = demo()
    assert done.returncode == 0, done.stderr
    assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10).ok


def test_a_taken_port_leaves_the_running_server_alone(
    demo: Run, run: Run, trained: Path, tmp_path: Path, port: int
) -> None:
    store = Store(tmp_path / "demo" / "store")
    shutil.copytree(trained, store.root)
    store.promote(store.versions()[0], "mine")
    assert demo().returncode == 0
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = run("demo", "--port", other.getsockname()[1])
    assert done.returncode == 1
    assert "is taken: choose another" in done.stderr
    assert "restarted" not in done.stderr
    assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10).ok


def test_a_damaged_demonstration_is_reported(demo: Run, trained: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "demo" / "store")
    shutil.copytree(trained, store.root)
    champion = store.versions()[0]
    store.promote(champion)
    (store.root / "versions" / champion / "manifest.json").write_text("{}")
    done = demo()
    assert done.returncode == 1
    assert done.stderr.startswith("peerloan: the demonstration in demo is damaged: ")
    assert "--folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_store_without_a_champion_is_completed(
    demo: Run, trained: Path, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "demo" / "store")
    shutil.copytree(trained, store.root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bootstrap, "LOANS", 3_000)
    main(["demo", "--port", str(port)])
    champion = store.state().champion
    assert champion not in Store(trained).versions()
    served = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10).json()
    assert served["model"]["version"] == champion
