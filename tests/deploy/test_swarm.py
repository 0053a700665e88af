"""Swarm on one machine: a good release is rolled out, a broken one is rolled back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.deployment import RELEASE, Deployment, copy_checkout, sh, wait_for
from deploy.ledger_check import LedgerCheck
from deploy.releases import BROKEN
from helpers.steady_load import Load, Tally
from peerloan.loan import default_definition

STACK = "peerloan-test-swarm"
APP = f"{STACK}_ms_flask_app"
PASSWORD = f"{STACK}_ledger_password"
WEBHOOK = f"{STACK}_webhook_secret"
SECRETS = (f"{STACK}_tls_crt", f"{STACK}_tls_key")


class Stack(Deployment):
    """The stack, deployed as an operator does."""

    def deploy(self, release: str, *files: str) -> subprocess.CompletedProcess[str]:
        """Run deploy.sh for a release."""
        return subprocess.run(
            ["sh", "deploy/swarm/deploy.sh", *files],
            cwd=self.folder,
            env=os.environ | self.settings | {"PEERLOAN_RELEASE": release, "PEERLOAN_STACK": STACK},
            capture_output=True,
            text=True,
            check=False,
        )

    def containers(self, service: str, *options: str) -> list[str]:
        """The ids of a service's running containers. Options are those of `docker ps`."""
        return sh("docker", "ps", "-q", *options, "--filter", f"name={STACK}_{service}.").split()

    def make_token(self) -> None:
        """Make a token for the tests, as an operator does."""
        container = self.containers("ms_model")[0]
        self.token = sh("docker", "exec", container, "peerloan", "token", "new", "tests").strip()

    def image(self) -> str:
        """The image that the application's service should run."""
        form = "{{.Spec.TaskTemplate.ContainerSpec.Image}}"
        return sh("docker", "service", "inspect", "-f", form, APP).strip().split("@")[0]


def remove() -> None:
    """Remove the stack with its volumes and secrets."""
    subprocess.run(["docker", "stack", "rm", STACK], capture_output=True, check=False)
    volumes = ("versions", "aliases", "tokens", "seal", "ledger", "books")

    def gone() -> bool:
        ask = ["docker", "ps", "-aq", "--filter", f"name={STACK}"]
        return not sh(*ask).strip()

    wait_for("the containers' end", gone, 120)
    for name in volumes:
        subprocess.run(
            ["docker", "volume", "rm", f"{STACK}_{name}"], capture_output=True, check=False
        )
    for name in (*SECRETS, PASSWORD, WEBHOOK):
        subprocess.run(["docker", "secret", "rm", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def stack(
    engine: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack with a champion in every worker."""
    state = sh("docker", "info", "-f", "{{.Swarm.LocalNodeState}}").strip()
    if state != "inactive":
        pytest.skip("this engine is part of a swarm, which is somebody's")
    sh("docker", "swarm", "init", "--advertise-addr", "127.0.0.1")
    (engine / "swarm").touch()  # the last worker leaves it
    deployment = Stack(copy_checkout(tmp_path_factory.mktemp("swarm") / "peerloan"), STACK)
    try:
        done = deployment.deploy(RELEASE)
        assert (done.returncode, done.stdout) == (1, "")
        assert "no rules/rules.toml; make it by: sh deploy/prepare.sh" in done.stderr
        sh("sh", "deploy/prepare.sh", cwd=deployment.folder)
        done = deployment.deploy(RELEASE)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"no secret {PASSWORD}; make it by: sh deploy/prepare.sh &&" in done.stderr
        sh("docker", "secret", "create", PASSWORD, deployment.folder / "secrets/ledger_password")
        sh("docker", "secret", "create", WEBHOOK, deployment.folder / "secrets/webhook_secret")
        done = deployment.deploy(RELEASE)
        assert done.returncode == 0, done.stderr
        deployment.make_token()
        wait_for("the token", deployment.token_works)
        wait_for("a champion in every worker", deployment.settled, 180)
        yield deployment
    finally:
        remove()


class Steady(Load):
    """A steady load, and what the ledger stored of it."""

    def __init__(self, stack: Stack) -> None:
        loan = {field.name: field.default for field in default_definition().fields}
        # About 100 requests a second. An update takes a minute, so it sees thousands of them.
        super().__init__(stack.https, loan, pause=0.05, token=stack.token)
        self.ledger = LedgerCheck()

    def take(self) -> Tally:
        """Return what clients saw since the last call."""
        tally = super().take()
        self.ledger.add(tally)
        return tally


@pytest.fixture(scope="module")
def load(stack: Stack) -> Iterator[Steady]:
    """A load that lasts for all tests of the module."""
    with Steady(stack) as load:
        time.sleep(1)
        assert load.take().faults == []
        yield load


def tag(release: str) -> str:
    """Tag the model's image with a release of the application."""
    sh("docker", "tag", f"peerloan/ms_model:{RELEASE}", f"peerloan/ms_model:{release}")
    return release


def test_a_release_whose_migration_fails_touches_nothing(
    stack: Stack, load: Steady, next_images: dict[str, str]
) -> None:
    before = stack.containers("ms_flask_app")
    done = stack.deploy(tag(next_images["fails"]))
    assert done.returncode == 1
    assert 'table "no_such_table" does not exist' in done.stderr
    assert "the ledger was not upgraded; nothing else was touched" in done.stderr
    assert stack.containers("ms_flask_app") == before
    assert stack.sql("SELECT number FROM migrations ORDER BY number") == ["1", "2", "3"]
    assert load.take().faults == []


def test_a_good_release_rolls_out(stack: Stack, load: Steady, next_images: dict[str, str]) -> None:
    good = next_images["admits the release before"]
    done = stack.deploy(tag(good))
    assert done.returncode == 0, done.stderr
    assert "ms_flask_app: completed, 2/2" in done.stderr
    assert stack.image() == f"peerloan/ms_flask_app:{good}"
    assert stack.sql("SELECT number FROM migrations ORDER BY number") == ["1", "2", "3", "4"]
    time.sleep(2)
    tally = load.take()
    assert tally.requests > 1000
    assert tally.faults == []


def test_the_same_release_again_changes_nothing(stack: Stack, next_images: dict[str, str]) -> None:
    done = stack.deploy(next_images["admits the release before"])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": running, ") == 5


@pytest.mark.parametrize(
    "line", ["PEERLOAN_RATE='300'", "PEERLOAN_RATE=3 # c", "export A=b", "A=$B"]
)
def test_settings_that_compose_would_read_otherwise_are_refused(stack: Stack, line: str) -> None:
    settings = stack.folder / ".env"
    settings.write_text(f"# as the example\n{line}\n", "utf-8")
    done = stack.deploy(RELEASE)
    settings.unlink()
    assert done.returncode == 2
    assert ".env, line 2: expected NAME=value" in done.stderr


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_release_rolls_itself_back(
    stack: Stack, load: Steady, broken_images: dict[str, str], what: str
) -> None:
    before = stack.image()
    done = stack.deploy(tag(broken_images[what]))
    assert done.returncode == 1
    assert "ms_flask_app: rollback_completed, 2/2" in done.stderr
    assert stack.image() == before
    time.sleep(2)
    tally = load.take()
    assert tally.requests > 1000
    assert tally.faults == []
    assert len(tally.versions) == 1


def test_a_model_is_trained_and_promoted_in_the_stack(stack: Stack, load: Steady) -> None:
    container = stack.containers("ms_model")[0]
    before = stack.serving()
    sh("docker", "exec", container, "peerloan", "sample", "/tmp/book.csv", "--loans", "6000")
    command = "peerloan train /tmp/book.csv --quick --candidate binned --promote"
    sh("docker", "exec", container, *command.split())
    wait_for("the new champion", lambda: stack.settled() and stack.serving() != before)
    tally = load.take()
    assert tally.faults == []
    assert set(tally.versions) >= {before}


def test_the_release_before_runs_on_the_new_tables(stack: Stack, load: Steady) -> None:
    done = stack.deploy(RELEASE)
    assert done.returncode == 0, done.stderr
    assert "ms_flask_app: completed, 2/2" in done.stderr
    assert stack.image() == f"peerloan/ms_flask_app:{RELEASE}"
    assert load.take().faults == []


def test_every_answer_is_in_the_ledger_exactly_once(
    stack: Stack, load: Steady, record_property: Callable[[str, object], None]
) -> None:
    load.stop()
    assert load.take().faults == []
    load.ledger.read_ledger(stack)
    record_property("load", f"in a Swarm: {load.ledger}")
    assert load.ledger.answered == load.ledger.sent > 1000
    assert load.ledger.lost == load.ledger.duplicated == 0


def test_the_certificate_is_a_secret(stack: Stack, tmp_path: Path) -> None:
    sh(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=risk.test"),
        *("-days", "2", "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt"),
    )
    for name, file in zip(SECRETS, ("tls.crt", "tls.key"), strict=True):
        sh("docker", "secret", "create", name, tmp_path / file)
    done = stack.deploy(RELEASE, "deploy/swarm/tls.yml")
    assert done.returncode == 0, done.stderr
    wait_for("HTTPS with it", lambda: "Strict-Transport-Security" in stack.get("/").headers)
