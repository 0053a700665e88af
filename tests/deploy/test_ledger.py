"""The ledger's database in its container: its password, tables and volume."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import ROOT, Deployment, copy_checkout, inspect, sh, wait_for

SECRET = "secrets/ledger_password"
ASK_AS_SUPERUSER = (
    "import psycopg; psycopg.connect(host='ledger', dbname='peerloan', user='postgres',"
    " password=open('/run/secrets/ledger_password').read())"
)


@pytest.fixture(scope="module")
def database(checkout: Path) -> Iterator[Deployment]:
    """The database without tables, and without other services."""
    deployment = Deployment(checkout, "peerloan-test-ledger")
    deployment.compose("down", "--volumes", "--remove-orphans")  # left by an interrupted run
    deployment.compose("up", "-d", "ledger")
    wait_for("the database", lambda: is_healthy(deployment))
    yield deployment
    deployment.compose("down", "--volumes", "--remove-orphans")


def is_healthy(deployment: Deployment) -> bool:
    """Whether the database's container is healthy."""
    (container,) = deployment.containers("ledger")
    return bool(inspect(container)["State"]["Health"]["Status"] == "healthy")


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
    code, output = database.run("ms_flask_app")
    assert code == 1
    assert "@ledger/peerloan: contains no ledger yet; run: peerloan ledger upgrade" in output


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
    code, output = database.run("ms_flask_app", release=next_images["admits the release before"])
    assert code == 1
    assert "(expected migration 4, given 3); run: peerloan ledger upgrade" in output


@pytest.mark.parametrize("service", ["ledger_upgrade", "ms_flask_app"])
def test_a_release_that_the_tables_do_not_admit_is_refused(
    database: Deployment, next_images: dict[str, str], service: str
) -> None:
    assert database.run("ledger_upgrade", release=next_images["admits no release before"])[0] == 0
    code, output = database.run(service)
    assert code == 1
    assert "(migration 4), which needs release 0.2.0 or later; this is release 0.1.0" in output
