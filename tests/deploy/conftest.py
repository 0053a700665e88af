"""A real engine, the project's images in it, and a compose project that runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import Deployment, copy_checkout, wait_for


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
    Deployment(folder, "peerloan-build").compose("build")
    return folder


@pytest.fixture(scope="session")
def deployed(checkout: Path) -> Iterator[Deployment]:
    """Nginx and two applications, which wait for their first champion."""
    here = Deployment(checkout, "peerloan-test")
    (checkout / "books").mkdir()
    here.compose("down", "--volumes", "--remove-orphans")  # of a run that was cut off
    here.compose("up", "-d", "nginx", "ms_flask_app")
    wait_for("healthy applications", lambda: here.get("/healthz").ok)
    yield here
    here.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def serving(deployed: Deployment) -> Deployment:
    """With the model's container, and the champion that it trained."""
    deployed.compose("up", "-d", "ms_model")
    wait_for("a champion in every worker", deployed.settled, 180)
    return deployed
