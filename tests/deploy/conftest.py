"""Fixtures for a real Docker engine: the project's images, and one deployment that tests share."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from deploy.deployment import RELEASE, Deployment, clone, wait_for
from deploy.releases import BROKEN_TAGS, NEXT_TAGS, build_broken, build_next
from helpers.shared import shared_folder

PROJECT = "peerloan-test"
# Tests of the shared deployment change it, so they all run in one worker, one after another.
SHARED_MODULES = (
    *("test_compose", "test_first_start", "test_backup", "test_monitor", "test_nginx"),
    "test_nothing_stops",
)
# The order of the others: the longest first, but before it one that needs no image of the project,
# so that it runs while the images are built.
MODULE_ORDER = (*SHARED_MODULES, "test_secrets", "test_swarm")


class DeploymentScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all shared modules to one worker of `pytest -n`, and each other module to any."""

    def _split_scope(self, nodeid: str) -> str:
        module = Path(nodeid.split("::")[0]).stem
        return "shared" if module in SHARED_MODULES else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> DeploymentScheduling:
    """Distribute the modules in the order of collection."""
    config.option.loadscopereorder = False
    return DeploymentScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the modules."""
    positions = {module: number for number, module in enumerate(MODULE_ORDER)}
    items.sort(key=lambda item: positions.get(item.path.stem, len(positions)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what clients saw under load. Workers can't print, so tests record it."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == "load" and report.when == "call":
                    terminalreporter.write_line(f"\n{text}")


@pytest.fixture(scope="session", autouse=True)
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Skip if no Docker engine can be reached. The last worker removes what was shared."""
    compose = shutil.which("docker-compose") or (
        shutil.which("docker") and not subprocess.call(["docker", "compose", "version"])
    )
    if not shutil.which("docker") or not compose:
        pytest.skip("Docker and its compose are not installed: what is deployed is not tested")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine can be reached: what is deployed is not tested")
    folder = shared_folder(tmp_path_factory, "workers", lambda _: None)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another worker still uses it
        clones = shared_folder(tmp_path_factory, "clone", lambda _: None)
        if (clones / "peerloan").exists():
            remove(Deployment(clones / "peerloan", PROJECT))
        # Leaving a swarm makes the engine forget the names of all running containers.
        if (folder / "swarm").exists():
            subprocess.run(["docker", "swarm", "leave", "--force"], check=True)


@dataclass(frozen=True)
class FirstStart:
    """A fresh clone that was started by `docker-compose up -d`, on a host without its images."""

    deployment: Deployment
    printed: str
    # The files that the start created in the clone.
    added: frozenset[Path]


def remove(deployment: Deployment) -> None:
    """Remove a deployment's containers, networks and volumes."""
    deployment.compose("down", "--volumes", "--remove-orphans")


def files_of(folder: Path) -> frozenset[Path]:
    """The files of a clone, without those of git itself."""
    return frozenset(path for path in folder.rglob("*") if ".git" not in path.parts)


def start_once(factory: pytest.TempPathFactory) -> FirstStart:
    """Start the shared deployment in the first worker that needs it; the others wait for it."""
    folder = shared_folder(factory, "clone", lambda _: None) / "peerloan"

    def start(result: Path) -> None:
        deployment = Deployment(clone(folder), PROJECT)
        remove(deployment)  # left by an interrupted run
        for name in ("ms_flask_app", "ms_model"):
            command = ["docker", "rmi", "--force", f"peerloan/{name}:{RELEASE}"]
            subprocess.run(command, capture_output=True, check=False)
        files = files_of(folder)
        done = deployment.ask("up", "-d")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        outcome = {
            "settings": deployment.settings,
            "printed": done.stdout + done.stderr,
            "added": sorted(map(str, files_of(folder) - files)),
        }
        (result / "start.json").write_text(json.dumps(outcome), "utf-8")

    result = shared_folder(factory, "first_start", start)
    outcome = json.loads((result / "start.json").read_text("utf-8"))
    return FirstStart(
        Deployment(folder, PROJECT, **outcome["settings"]),
        outcome["printed"],
        frozenset(map(Path, outcome["added"])),
    )


@pytest.fixture(scope="session")
def first_start(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    """The shared deployment, as one command started it."""
    return start_once(tmp_path_factory)


@pytest.fixture(scope="session")
def checkout(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose images are built."""
    return start_once(tmp_path_factory).deployment.folder


@pytest.fixture(scope="session")
def serving(first_start: FirstStart) -> Deployment:
    """The shared deployment, serving the champion that the model's container trained."""
    deployment = first_start.deployment
    deployment.make_token()
    wait_for("the token", deployment.token_works)
    wait_for("a champion in every worker", deployment.settled, 180)
    return deployment


@pytest.fixture(scope="session")
def broken_images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tags of images that must be refused, by what is wrong with them."""
    shared_folder(tmp_path_factory, "broken_images", build_broken)
    return BROKEN_TAGS


@pytest.fixture(scope="session")
def next_images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tags of images of the next release, by what its migration does."""
    shared_folder(tmp_path_factory, "next_images", build_next)
    return NEXT_TAGS
