"""The contents of the images: settings, libraries, size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.deployment import RELEASE, sh

BASE = "python:3.11-slim-bookworm"
IMAGES = ("ms_flask_app", "ms_model")
MB = 1_000_000


def inspect(image: str) -> dict[str, Any]:
    """Return the engine's description of an image."""
    description: dict[str, Any] = json.loads(sh("docker", "image", "inspect", image))[0]
    return description


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_a_user_a_health_check_and_labels(checkout: Path, name: str) -> None:
    config = inspect(f"peerloan/{name}:{RELEASE}")["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == name
    assert labels["org.opencontainers.image.version"] == RELEASE
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_application_s_health_is_asked_at_its_health_path(checkout: Path) -> None:
    config = inspect(f"peerloan/ms_flask_app:{RELEASE}")["Config"]
    assert "/healthz" in " ".join(config["Healthcheck"]["Test"])


def test_the_serving_image_carries_no_training_no_installer_and_no_compiler(
    checkout: Path,
) -> None:
    ask = (
        "import importlib.util, shutil, sys;"
        "libraries = 'sklearn xgboost pyarrow pandas scipy onnx matplotlib pip setuptools'.split();"
        "print([n for n in libraries if importlib.util.find_spec(n)],"
        " [n for n in ('gcc', 'cc', 'make') if shutil.which(n)])"
    )
    image = f"peerloan/ms_flask_app:{RELEASE}"
    assert sh("docker", "run", "--rm", "--entrypoint", "python", image, "-c", ask) == "[] []\n"


def test_the_serving_image_adds_at_most_300_mb_to_its_base(checkout: Path) -> None:
    added_bytes = inspect(f"peerloan/ms_flask_app:{RELEASE}")["Size"] - inspect(BASE)["Size"]
    assert 10 * MB < added_bytes <= 300 * MB


LIST = """
import importlib.metadata as metadata, json, re
names = {re.sub("[-_.]+", "-", d.name).lower(): d.version for d in metadata.distributions()}
print(json.dumps(names))
"""


@pytest.mark.parametrize(("name", "lock"), [("ms_flask_app", "serve"), ("ms_model", "train")])
def test_what_is_installed_is_what_the_lock_says(checkout: Path, name: str, lock: str) -> None:
    text = (checkout / f"requirements/{lock}.txt").read_text("utf-8")
    image = f"peerloan/{name}:{RELEASE}"
    listed = sh("docker", "run", "--rm", "--entrypoint", "python", image, "-I", "-c", LIST)
    installed = json.loads(listed)
    assert installed.pop("peerloan")
    assert installed
    for package, version in installed.items():
        assert f"{package}=={version} " in text, package


def test_the_build_takes_in_what_it_names_and_no_more(checkout: Path) -> None:
    """Settings, books and keys in a checkout never reach an image."""
    ignored = (checkout / ".dockerignore").read_text("utf-8").split("\n")
    assert "*" in ignored
    included = {line[1:] for line in ignored if line.startswith("!")}
    assert included == {
        *("LICENSE", "README.md", "pyproject.toml", "deploy/ms_model", "requirements", "src"),
    }
