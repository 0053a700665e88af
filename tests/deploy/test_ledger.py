"""The ledger's database in its container: its password, its tables, its volume, its backup."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.deployment import ROOT, Deployment, copy_checkout, inspect, sh, wait_for

SECRET = "secrets/ledger_password"
ASK_AS_SUPERUSER = (
    "import psycopg; psycopg.connect(host='ledger', dbname='peerloan', user='postgres',"
    " password=open('/run/secrets/ledger_password').read())"
)


@pytest.fixture(scope="module")
def database(checkout: Path) -> Iterator[Deployment]:
    """The database alone, with no table in it."""
    here = Deployment(checkout, "peerloan-test-ledger")
    here.compose("down", "--volumes", "--remove-orphans")  # of a run that was cut off
    here.compose("up", "-d", "ledger")
    wait_for("the database", lambda: is_healthy(here))
    yield here
    here.compose("down", "--volumes", "--remove-orphans")


def is_healthy(here: Deployment) -> bool:
    """Whether the database's container is healthy."""
    (container,) = here.containers("ledger")
    return bool(inspect(container)["State"]["Health"]["Status"] == "healthy")


def run(here: Deployment, service: str, *command: str, release: str = "") -> tuple[int, str]:
    """Run a command of a service once; its exit code and what it printed."""
    settings = {"PEERLOAN_RELEASE": release} if release else {}
    done = here.ask("run", "--rm", "--no-deps", "-T", service, *command, **settings)
    return done.returncode, done.stdout + done.stderr


def test_preparing_makes_a_password_once_and_keeps_it_from_everybody_else(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path / "peerloan")
    sh("sh", "deploy/prepare.sh", cwd=folder)
    password = (folder / SECRET).read_text("utf-8")
    assert sh("sh", "deploy/prepare.sh", cwd=folder) == ""
    assert (folder / SECRET).read_text("utf-8") == password
    assert len(password) == 64
    assert (folder / "secrets").stat().st_mode & 0o077 == 0, "its owner's alone"
    assert (folder / SECRET).stat().st_mode & 0o222 == 0


def test_git_and_the_images_keep_away_from_what_lies_in_a_clone() -> None:
    kept = ("books/q3.csv", "certificates/tls.key", "rules/rules.toml", SECRET, ".env")
    for path in kept:
        sh("git", "check-ignore", "--no-index", path, cwd=ROOT)


def test_the_password_is_a_file_and_nothing_else(database: Deployment) -> None:
    password = database.secret("ledger")
    database.compose("up", "-d", "--scale", "ms_flask_app=1", "ms_flask_app")
    for service in ("setup", "ledger", "ms_flask_app", "ledger_upgrade"):
        (container,) = database.containers(service, "-a")
        assert password not in sh("docker", "inspect", container)
        log = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
        assert password not in log.stdout + log.stderr
        if service in ("ledger", "ms_flask_app"):
            assert password not in sh("docker", "exec", container, "cat", "/proc/1/environ")


def test_the_superuser_is_not_reached_over_the_network(database: Deployment) -> None:
    code = ("--entrypoint", "python", "ms_model", "-c", ASK_AS_SUPERUSER)
    done = database.ask("run", "--rm", "--no-deps", "-T", *code)
    assert done.returncode == 1
    assert "no pg_hba.conf entry for host" in done.stderr
    assert database.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'peerloan'") == ["f"]


def test_an_application_without_tables_does_not_start_and_says_what_to_run(
    database: Deployment,
) -> None:
    database.sql("DROP OWNED BY peerloan")
    code, told = run(database, "ms_flask_app")
    assert code == 1
    assert "@ledger/peerloan: contains no ledger yet; run: peerloan ledger upgrade" in told


def test_the_database_outlives_its_container(database: Deployment) -> None:
    database.compose("run", "--rm", "--no-deps", "-T", "ledger_upgrade")
    database.compose("down")
    database.compose("up", "-d", "ledger")
    wait_for("the database", lambda: is_healthy(database))
    assert database.sql("SELECT number FROM migrations ORDER BY number") == ["1", "2", "3"]


def test_a_database_that_is_killed_comes_back(database: Deployment) -> None:
    (container,) = database.containers("ledger")
    sh("docker", "exec", container, "sh", "-c", "kill -QUIT 1")  # as a crash: it ends unprepared
    wait_for("its end", lambda: inspect(container)["RestartCount"] == 1)
    wait_for("the database", lambda: is_healthy(database))
    assert database.sql("SELECT number FROM migrations ORDER BY number") == ["1", "2", "3"]


def test_a_release_whose_tables_are_not_there_yet_does_not_start(
    database: Deployment, next_images: dict[str, str]
) -> None:
    code, told = run(database, "ms_flask_app", release=next_images["admits the release before"])
    assert code == 1
    assert "(migration 3, this release needs 4); run: peerloan ledger upgrade" in told


@pytest.mark.parametrize("service", ["ledger_upgrade", "ms_flask_app"])
def test_a_release_that_the_tables_do_not_admit_is_refused(
    database: Deployment, next_images: dict[str, str], service: str
) -> None:
    assert run(database, "ledger_upgrade", release=next_images["admits no release before"])[0] == 0
    code, told = run(database, service)
    assert code == 1
    assert "(migration 4), which needs release 0.2.0 or later; this is release 0.1.0" in told


def commands(section: str) -> list[str]:
    """The blocks of commands in a section of the guide."""
    text = (ROOT / "docs/deploy.md").read_text("utf-8").split(f"\n## {section}\n")[1]
    return re.findall(r"```sh\n(.*?)```", text.split("\n## ")[0], re.S)


def test_the_guide_s_backup_is_restored_on_another_host(
    serving: Deployment, tmp_path: Path, loan: dict[str, Any]
) -> None:
    answer = serving.post("/v1/predictions", json=loan).json()
    backup, restore = commands("The ledger's backup")
    sh("sh", "-ec", backup, env=serving.settings, cwd=serving.folder)
    other = Deployment(copy_checkout(tmp_path / "peerloan"), "peerloan-test-restored")
    for name in ("seal.tar", "ledger.dump"):
        (serving.folder / name).rename(other.folder / name)
    try:
        *steps, start = restore.strip().splitlines()
        assert start == "docker-compose up -d"
        sh("sh", "-ec", "\n".join(steps), env=other.settings, cwd=other.folder)
        code, told = run(other, "ledger_upgrade")
        assert (code, "nothing to do" in told) == (0, True)
        assert other.sql(f"SELECT id FROM decisions WHERE id = '{answer['id']}'") == [answer["id"]]
        key = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "sha256sum", "ms_model")
        assert other.compose(*key, "/seal/key") == serving.compose(*key, "/seal/key")
        # And there it gets another password.
        before = other.secret("ledger")
        steps = commands("The secrets")[0].splitlines()
        update = steps.index("sh deploy/update.sh")
        sh("sh", "-ec", "\n".join(steps[:update]), env=other.settings, cwd=other.folder)
        after = other.secret("ledger")
        assert after != before
        assert (other.folder / SECRET).read_text("utf-8").strip() == after.strip()
        assert run(other, "ledger_upgrade")[0] == 0
        (other.folder / SECRET).write_text(before, "utf-8")
        assert run(other, "setup", "take", "ledger_password")[0] == 0
        code, told = run(other, "ledger_upgrade")
        assert (code, "password authentication failed" in told) == (1, True)
    finally:
        other.compose("down", "--volumes")
