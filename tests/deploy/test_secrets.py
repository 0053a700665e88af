"""What the first container makes or takes: each secret once, and for those alone who need it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import Deployment, copy_checkout, sh

# Of each volume: who owns it, and what is in it.
LIST = "cd /v && stat -c '%u %a' . && for f in $(ls -A); do stat -c '%u %a' $f; cat $f; echo; done"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Deployment]:
    """A deployment that was never started."""
    made = Deployment(copy_checkout(tmp_path / "peerloan"), "peerloan-test-secrets")
    made.compose("down", "--volumes")  # of a run that was cut off
    yield made
    made.compose("down", "--volumes")


def setup(here: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start the first container."""
    return here.ask("run", "--rm", "-T", "setup", *arguments)


def as_root(mount: str, *command: str) -> str:
    """What a command prints that is run on a volume, at /v."""
    run = ("docker", "run", "--rm", "--volume", mount, "--entrypoint", command[0])
    return sh(*run, "postgres:15-bookworm", *command[1:])


def volume(here: Deployment, name: str) -> list[str]:
    """A volume's owner and mode, and then those of each file, and what it holds."""
    return as_root(f"{here.name}_{name}:/v", "sh", "-c", LIST).split("\n")[:-1]


def bring(here: Deployment, name: str, value: str) -> Path:
    path = here.folder / "secrets" / name
    path.write_text(value, "utf-8")
    path.chmod(0o600)
    return path


def test_each_is_made_once_and_only_its_reader_has_it(here: Deployment) -> None:
    done = setup(here)
    assert done.returncode == 0, done.stderr
    owner, file, password = volume(here, "application_secrets")
    assert (owner, file, len(password)) == ("10001 700", "10001 400", 64)
    *_, webhook = monitor = volume(here, "monitor_secrets")
    assert monitor == ["10001 700", "10001 400", password, "10001 400", webhook]
    assert len(webhook) == 64
    assert webhook != password
    user = as_root(f"{here.name}_database_secrets:/v", "id", "-u", "postgres").strip()
    assert volume(here, "database_secrets") == [f"{user} 700", f"{user} 400", password]
    assert volume(here, "certificate") == ["101 700"]
    again = setup(here)
    assert again.returncode == 0
    for printed in (done.stdout + done.stderr, again.stdout + again.stderr):
        assert password not in printed
        assert webhook not in printed
    assert "made the secret" not in again.stderr
    assert volume(here, "monitor_secrets") == monitor


def test_a_volume_that_was_open_to_others_is_closed(here: Deployment) -> None:
    assert setup(here).returncode == 0
    names = ("application_secrets", "monitor_secrets", "database_secrets", "certificate")
    before = [volume(here, name) for name in names]
    for name in names:
        as_root(f"{here.name}_{name}:/v", "chmod", "755", "/v")
    done = setup(here)
    assert done.returncode == 0, done.stderr
    assert [volume(here, name) for name in names] == before


def test_one_that_was_brought_is_used_and_kept_when_its_file_goes(here: Deployment) -> None:
    path = bring(here, "ledger_password", "brought\n")
    (here.folder / "secrets").chmod(0o700)
    assert setup(here).returncode == 0
    path.unlink()
    assert setup(here).returncode == 0
    for name in ("application_secrets", "database_secrets", "monitor_secrets"):
        assert volume(here, name)[2] == "brought"


def test_one_in_use_changes_when_it_is_asked_for_alone(here: Deployment) -> None:
    setup(here)
    before = volume(here, "monitor_secrets")
    bring(here, "ledger_password", "another")
    for arguments in ((), ("take", "webhook_secret")):
        done = setup(here, *arguments)
        assert done.returncode == 1
        assert "setup: secrets/ledger_password is not the one in use" in done.stderr
    assert volume(here, "monitor_secrets") == before
    done = setup(here, "take", "ledger_password")
    assert done.returncode == 0, done.stderr
    assert [line for line in volume(here, "monitor_secrets") if line not in before] == ["another"]
    for name in ("application_secrets", "database_secrets"):
        assert volume(here, name)[2] == "another"


def test_nothing_is_taken_for_a_secret_that_is_none(here: Deployment) -> None:
    done = setup(here, "take", "tls_key")
    assert done.returncode == 1
    assert "setup: expected nothing, or: take ledger_password" in done.stderr
    done = setup(here, "take", "webhook_secret")
    assert "setup: secrets/webhook_secret: expected a file to take, found none" in done.stderr
    path = bring(here, "webhook_secret", "")
    message = "setup: secrets/webhook_secret: expected a file that is not empty"
    assert message in setup(here).stderr
    path.unlink()
    path.mkdir()
    assert message in setup(here).stderr


def test_a_database_whose_password_is_lost_is_given_no_other(here: Deployment) -> None:
    as_root(f"{here.name}_ledger:/v", "touch", "/v/PG_VERSION")
    done = setup(here)
    assert done.returncode == 1
    assert "has a password already, and it is not here. Put it into secrets/" in done.stderr
    assert len(volume(here, "application_secrets")) == 1
    bring(here, "ledger_password", "the one")
    assert setup(here).returncode == 0


def test_a_clone_that_containers_can_not_read_is_named(here: Deployment) -> None:
    (here.folder / "deploy/nginx/nginx.conf").chmod(0o640)
    done = setup(here)
    assert done.returncode == 1
    assert "setup: ./deploy/nginx/nginx.conf can't be read by other users" in done.stderr
    assert "chmod -R go+rX books certificates deploy rules" in done.stderr
    sh("sh", "-c", "chmod -R go+rX books certificates deploy rules", cwd=here.folder)
    assert setup(here).returncode == 0
