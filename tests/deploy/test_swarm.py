"""Swarm on one machine: a good release rolls out, a broken one rolls itself back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.conftest import BROKEN
from deploy.deployment import RELEASE, Deployment, sh, wait_for
from deploy.steady_load import Load
from peerloan.loan import default_definition

STACK = "peerloan-test-swarm"
APP = f"{STACK}_ms_flask_app"
GOOD = "test-good"
SECRETS = (f"{STACK}_tls_crt", f"{STACK}_tls_key")


class Stack(Deployment):
    """The stack, brought about as an operator does."""

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

    def make_token(self) -> None:
        """A token for the tests, made as an operator does."""
        container = sh("docker", "ps", "-q", "--filter", f"name={STACK}_ms_model").split()[0]
        self.token = sh("docker", "exec", container, "peerloan", "token", "new", "tests").strip()

    def image(self) -> str:
        """The image that the application's service is meant to have."""
        form = "{{.Spec.TaskTemplate.ContainerSpec.Image}}"
        return sh("docker", "service", "inspect", "-f", form, APP).strip().split("@")[0]


def remove() -> None:
    """Remove the stack and all that it made."""
    subprocess.run(["docker", "stack", "rm", STACK], capture_output=True, check=False)
    names = [f"{STACK}_{name}" for name in ("versions", "aliases", "tokens", "books")]

    def gone() -> bool:
        ask = ["docker", "ps", "-aq", "--filter", f"name={STACK}"]
        return not sh(*ask).strip()

    wait_for("the containers' end", gone, 120)
    for name in names:
        subprocess.run(["docker", "volume", "rm", name], capture_output=True, check=False)
    for name in SECRETS:
        subprocess.run(["docker", "secret", "rm", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def stack(checkout: Path) -> Iterator[Stack]:
    """A stack with a champion in every worker."""
    state = sh("docker", "info", "-f", "{{.Swarm.LocalNodeState}}").strip()
    if state != "inactive":
        pytest.skip("this engine is part of a swarm, which is somebody's")
    sh("docker", "swarm", "init", "--advertise-addr", "127.0.0.1")
    here = Stack(checkout, STACK)
    done = here.deploy(RELEASE)
    assert done.returncode == 0, done.stderr
    here.make_token()
    wait_for("the token", here.let_in)
    wait_for("a champion in every worker", here.settled, 180)
    yield here
    remove()
    sh("docker", "swarm", "leave", "--force")


@pytest.fixture(scope="module")
def load(stack: Stack) -> Iterator[Load]:
    """A steady load."""
    loan = {field.name: field.default for field in default_definition().fields}
    with Load(stack.https, loan, token=stack.token) as load:
        time.sleep(1)
        load.take()
        yield load


def tag(release: str, app: str) -> None:
    """Name images as a release."""
    sh("docker", "tag", f"peerloan/ms_flask_app:{app}", f"peerloan/ms_flask_app:{release}")
    sh("docker", "tag", f"peerloan/ms_model:{RELEASE}", f"peerloan/ms_model:{release}")


def test_a_good_release_rolls_out(stack: Stack, load: Load) -> None:
    recipe = f"FROM peerloan/ms_flask_app:{RELEASE}\nLABEL good=yes\n"
    command = ["docker", "build", "-t", f"peerloan/ms_flask_app:{GOOD}", "-"]
    subprocess.run(command, input=recipe, text=True, capture_output=True, check=True)
    tag(GOOD, GOOD)
    done = stack.deploy(GOOD)
    assert done.returncode == 0, done.stderr
    assert "ms_flask_app: completed, 2/2" in done.stderr
    assert stack.image() == f"peerloan/ms_flask_app:{GOOD}"
    time.sleep(2)
    tally = load.take()
    assert tally.requests > 1000
    assert tally.faults == []


def test_the_same_release_again_changes_nothing(stack: Stack) -> None:
    done = stack.deploy(GOOD)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": running, ") == 3


@pytest.mark.parametrize(
    "line", ["PEERLOAN_RATE='300'", "PEERLOAN_RATE=3 # c", "export A=b", "A=$B"]
)
def test_settings_that_compose_would_read_otherwise_are_refused(stack: Stack, line: str) -> None:
    settings = stack.folder / ".env"
    settings.write_text(f"# as the example\n{line}\n", "utf-8")
    done = stack.deploy(GOOD)
    settings.unlink()
    assert done.returncode == 2
    assert ".env, line 2: expected NAME=value" in done.stderr


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_release_rolls_itself_back(
    stack: Stack, load: Load, broken_images: dict[str, str], what: str
) -> None:
    tag(broken_images[what], broken_images[what])
    before = stack.image()
    done = stack.deploy(broken_images[what])
    assert done.returncode == 1
    assert "ms_flask_app: rollback_completed, 2/2" in done.stderr
    assert stack.image() == before
    time.sleep(2)
    tally = load.take()
    assert tally.requests > 1000
    assert tally.faults == []
    assert len(tally.versions) == 1


def test_a_model_is_trained_and_promoted_in_the_stack(stack: Stack, load: Load) -> None:
    ask = ("docker", "ps", "-q", "--filter", f"name={STACK}_ms_model")
    container = sh(*ask).split()[0]
    before = stack.serving()
    sh("docker", "exec", container, "peerloan", "sample", "/tmp/book.csv", "--loans", "6000")
    command = "peerloan train /tmp/book.csv --quick --candidate binned --promote"
    sh("docker", "exec", container, *command.split())
    wait_for("the new champion", lambda: stack.settled() and stack.serving() != before)
    tally = load.take()
    assert tally.faults == []
    assert set(tally.versions) >= {before}


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
