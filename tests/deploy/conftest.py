"""A real engine, the project's images in it, and a compose project that runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.deployment import RELEASE, Deployment, clone, wait_for
from deploy.releases import build_broken, build_next


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skip, and say so, where no engine can be reached."""
    compose = shutil.which("docker-compose") or (
        shutil.which("docker") and not subprocess.call(["docker", "compose", "version"])
    )
    if not shutil.which("docker") or not compose:
        pytest.skip("Docker and its compose are not installed: what is deployed is not tested")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine can be reached: what is deployed is not tested")


@dataclass(frozen=True)
class FirstStart:
    """A fresh clone that was started by `docker-compose up -d`, on a host without its images."""

    here: Deployment
    printed: str
    # What it left in the clone.
    added: frozenset[Path]


def files_of(folder: Path) -> frozenset[Path]:
    """What lies in a clone, beside what git keeps for itself."""
    return frozenset(path for path in folder.rglob("*") if ".git" not in path.parts)


@pytest.fixture(scope="session")
def first_start(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstStart]:
    """A fresh clone that was started by one command."""
    here = Deployment(clone(tmp_path_factory.mktemp("deploy") / "peerloan"), "peerloan-test")
    here.compose("down", "--volumes", "--remove-orphans")  # of a run that was cut off
    for name in ("ms_flask_app", "ms_model"):
        command = ["docker", "rmi", "--force", f"peerloan/{name}:{RELEASE}"]
        subprocess.run(command, capture_output=True, check=False)
    files = files_of(here.folder)
    done = here.ask("up", "-d")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    yield FirstStart(here, done.stdout + done.stderr, files_of(here.folder) - files)
    here.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def checkout(first_start: FirstStart) -> Path:
    """A checkout whose images are built."""
    return first_start.here.folder


@pytest.fixture(scope="session")
def serving(first_start: FirstStart) -> Deployment:
    """The whole, with the champion that the model's container trained."""
    here = first_start.here
    here.make_token()
    wait_for("the token", here.let_in)
    wait_for("a champion in every worker", here.settled, 180)
    return here


@pytest.fixture(scope="session")
def broken_images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tags of images that must be refused, by what is wrong with them."""
    return build_broken(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def next_images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tags of images of the next release, by what its migration does."""
    return build_next(tmp_path_factory.mktemp("next"))
