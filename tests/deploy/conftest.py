"""A real engine, the project's images in it, and a compose project that runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import Deployment, copy_checkout, sh, wait_for
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


@pytest.fixture(scope="session")
def checkout(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose images are built."""
    folder = copy_checkout(tmp_path_factory.mktemp("deploy") / "peerloan")
    sh("sh", "deploy/prepare.sh", cwd=folder)
    Deployment(folder, "peerloan-build").compose("build")
    return folder


@pytest.fixture(scope="session")
def serving(checkout: Path) -> Iterator[Deployment]:
    """The whole, with the champion that the model's container trained."""
    here = Deployment(checkout, "peerloan-test")
    here.compose("down", "--volumes", "--remove-orphans")  # of a run that was cut off
    here.compose("up", "-d")
    here.make_token()
    wait_for("the token", here.let_in)
    wait_for("a champion in every worker", here.settled, 180)
    yield here
    here.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def broken_images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tags of images that must be refused, by what is wrong with them."""
    return build_broken(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="session")
def next_images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tags of images of the next release, by what its migration does."""
    return build_next(tmp_path_factory.mktemp("next"))
