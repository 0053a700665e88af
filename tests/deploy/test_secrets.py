"""The setup container: it generates or takes secrets, and gives services only those they need."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import Deployment, copy_checkout, sh

# Of each volume: who owns it, and what is in it.
LIST = "cd /v && stat -c '%u %a' . && for f in $(ls -A); do stat -c '%u %a' $f; cat $f; echo; done"


NAME = "peerloan-test-secrets"


@pytest.fixture(scope="module", autouse=True)
def no_volumes(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remove what an interrupted run left."""
    folder = copy_checkout(tmp_path_factory.mktemp("secrets") / "peerloan")
    Deployment(folder, NAME).compose("down", "--volumes")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A deployment that was never started."""
    fresh = Deployment(copy_checkout(tmp_path / "peerloan"), NAME)
    yield fresh
    fresh.compose("down", "--volumes")


def setup(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the setup container."""
    return deployment.ask("run", "--rm", "-T", "setup", *arguments)


def as_root(mount: str, *command: str) -> str:
    """Run a command with a volume at /v; returns its output."""
    run = ("docker", "run", "--rm", "--volume", mount, "--entrypoint", command[0])
    return sh(*run, "postgres:15-bookworm", *command[1:])


def volume(deployment: Deployment, name: str) -> list[str]:
    """A volume's owner and mode, then owner, mode and content of every file in it."""
    return as_root(f"{deployment.name}_{name}:/v", "sh", "-c", LIST).split("\n")[:-1]


def bring(deployment: Deployment, name: str, value: str) -> Path:
    path = deployment.folder / "secrets" / name
    path.write_text(value, "utf-8")
    path.chmod(0o600)
    return path


def test_each_is_made_once_and_only_its_reader_has_it(deployment: Deployment) -> None:
    done = setup(deployment)
    assert done.returncode == 0, done.stderr
    owner, file, password = volume(deployment, "application_secrets")
    assert (owner, file, len(password)) == ("10001 700", "10001 400", 64)
    *_, webhook = monitor = volume(deployment, "monitor_secrets")
    assert monitor == ["10001 700", "10001 400", password, "10001 400", webhook]
    assert len(webhook) == 64
    assert webhook != password
    user = as_root(f"{deployment.name}_database_secrets:/v", "id", "-u", "postgres").strip()
    assert volume(deployment, "database_secrets") == [f"{user} 700", f"{user} 400", password]
    assert volume(deployment, "certificate") == ["101 700"]
    again = setup(deployment)
    assert again.returncode == 0
    for printed in (done.stdout + done.stderr, again.stdout + again.stderr):
        assert password not in printed
        assert webhook not in printed
    assert "made the secret" not in again.stderr
    assert volume(deployment, "monitor_secrets") == monitor


def test_a_volume_that_was_open_to_others_is_closed(deployment: Deployment) -> None:
    assert setup(deployment).returncode == 0
    names = ("application_secrets", "monitor_secrets", "database_secrets", "certificate")
    before = [volume(deployment, name) for name in names]
    for name in names:
        as_root(f"{deployment.name}_{name}:/v", "chmod", "755", "/v")
    done = setup(deployment)
    assert done.returncode == 0, done.stderr
    assert [volume(deployment, name) for name in names] == before


def test_one_that_was_brought_is_used_and_kept_when_its_file_goes(deployment: Deployment) -> None:
    path = bring(deployment, "ledger_password", "brought\n")
    (deployment.folder / "secrets").chmod(0o700)
    assert setup(deployment).returncode == 0
    path.unlink()
    assert setup(deployment).returncode == 0
    for name in ("application_secrets", "database_secrets", "monitor_secrets"):
        assert volume(deployment, name)[2] == "brought"


def test_one_in_use_changes_when_it_is_asked_for_alone(deployment: Deployment) -> None:
    setup(deployment)
    before = volume(deployment, "monitor_secrets")
    bring(deployment, "ledger_password", "another")
    for arguments in ((), ("take", "webhook_secret")):
        done = setup(deployment, *arguments)
        assert done.returncode == 1
        assert "setup: secrets/ledger_password is not the one in use" in done.stderr
    assert volume(deployment, "monitor_secrets") == before
    done = setup(deployment, "take", "ledger_password")
    assert done.returncode == 0, done.stderr
    assert [line for line in volume(deployment, "monitor_secrets") if line not in before] == [
        "another"
    ]
    for name in ("application_secrets", "database_secrets"):
        assert volume(deployment, name)[2] == "another"


def test_nothing_is_taken_for_a_secret_that_is_none(deployment: Deployment) -> None:
    done = setup(deployment, "take", "tls_key")
    assert done.returncode == 1
    assert "setup: expected nothing, or: take ledger_password" in done.stderr
    done = setup(deployment, "take", "webhook_secret")
    assert "setup: secrets/webhook_secret: expected a file to take, found none" in done.stderr
    path = bring(deployment, "webhook_secret", "")
    message = "setup: secrets/webhook_secret: expected a file that is not empty"
    assert message in setup(deployment).stderr
    path.unlink()
    path.mkdir()
    assert message in setup(deployment).stderr


def test_a_database_whose_password_is_lost_is_given_no_other(deployment: Deployment) -> None:
    as_root(f"{deployment.name}_ledger:/v", "touch", "/v/PG_VERSION")
    done = setup(deployment)
    assert done.returncode == 1
    assert "has a password already, and it is not here. Put it into secrets/" in done.stderr
    assert len(volume(deployment, "application_secrets")) == 1
    bring(deployment, "ledger_password", "the one")
    assert setup(deployment).returncode == 0


def test_a_clone_that_containers_can_not_read_is_named(deployment: Deployment) -> None:
    (deployment.folder / "deploy/nginx/nginx.conf").chmod(0o640)
    done = setup(deployment)
    assert done.returncode == 1
    assert "setup: ./deploy/nginx/nginx.conf can't be read by other users" in done.stderr
    assert "chmod -R go+rX books certificates deploy rules" in done.stderr
    sh("sh", "-c", "chmod -R go+rX books certificates deploy rules", cwd=deployment.folder)
    assert setup(deployment).returncode == 0
