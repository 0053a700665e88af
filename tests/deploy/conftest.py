"""A real engine, the project's images in it, and a compose project that runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import RELEASE, Deployment, copy_checkout, wait_for


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
def serving(checkout: Path) -> Iterator[Deployment]:
    """The whole, with the champion that the model's container trained."""
    here = Deployment(checkout, "peerloan-test")
    (checkout / "books").mkdir(exist_ok=True)  # an earlier container may have mounted it
    here.compose("down", "--volumes", "--remove-orphans")  # of a run that was cut off
    here.compose("up", "-d")
    here.make_token()
    wait_for("the token", here.let_in)
    wait_for("a champion in every worker", here.settled, 180)
    yield here
    here.compose("down", "--volumes", "--remove-orphans")


# Releases that must not replace one that works: each is the application's image and one line.
BROKEN = {
    "does not start": 'ENTRYPOINT ["python", "-c", "raise SystemExit(1)"]',
    # As an old release under a champion of a newer format.
    "can't read the champion": 'RUN python -c "import pathlib, peerloan.model.manifest as m; '
    "path = pathlib.Path(m.__file__); text = path.read_text(); assert 'FORMAT = 1' in text; "
    "path.write_text(text.replace('FORMAT = 1', 'FORMAT = 0'))\"",
}


@pytest.fixture(scope="session")
def broken_images(checkout: Path) -> dict[str, str]:
    """The tags of images that must be refused, by what is wrong with them."""
    tags = {}
    for number, (what, line) in enumerate(BROKEN.items()):
        tags[what] = f"{RELEASE}-broken-{number}"
        recipe = f"FROM peerloan/ms_flask_app:{RELEASE}\nUSER root\n{line}\nUSER 10001:10001\n"
        subprocess.run(
            ["docker", "build", "-t", f"peerloan/ms_flask_app:{tags[what]}", "-"],
            input=recipe,
            text=True,
            capture_output=True,
            check=True,
        )
    return tags
