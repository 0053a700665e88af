"""A library of another version, or without a private name: the service starts, slower."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.service import GUNICORN, SERVE, UNTESTED, Serve, Service
from peerloan.registry import Store
from peerloan.web.http.tested_libraries import TESTED_VERSIONS

REQUIREMENTS = Path(__file__).parents[4] / "requirements"


def warnings(service: Service) -> list[str]:
    """The messages of the log's warnings about libraries."""
    lines = (json.loads(line) for line in service.log.read_text().splitlines() if line[:1] == "{")
    messages = [line["message"] for line in lines if line["level"] == "warning"]
    return [message for message in messages if "public interface" in message]


def check_service(service: Service, loan: dict[str, Any], libraries: list[str]) -> None:
    """Each worker answers, keeps what it decides, and says which libraries are not tested."""
    for _ in range(8):
        health = requests.get(f"{service.url}/healthz", timeout=5)
        assert health.status_code == 200
        assert health.json() == {"status": "ok", "untested_libraries": libraries}
        answer = requests.post(f"{service.url}/v1/predictions", json=loan, timeout=20)
        assert answer.status_code == 200, answer.text
        kept = requests.get(f"{service.url}/v1/predictions/{answer.json()['id']}", timeout=5)
        assert kept.status_code == 200, kept.text


@pytest.mark.parametrize(
    ("server", "libraries"),
    [(SERVE, ["flask", "granian"]), (GUNICORN, ["flask", "gunicorn"])],
    ids=["granian", "gunicorn"],
)
def test_with_other_versions_the_service_runs_and_says_so_once(
    champion: Store,
    serve: Serve,
    loan: dict[str, Any],
    server: str,
    libraries: list[str],
) -> None:
    service = serve(champion, workers=2, server=server, python=UNTESTED)

    check_service(service, loan, libraries)
    assert warnings(service) == [
        f"{library} {version(library)}: PeerLoan Risk was not tested with this version. "
        "The service uses only its public interface, which is slower; for full speed, install "
        f"{library}==0.1 or {library}==0.2"
        for library in libraries
    ]
    service.stop()
    assert service.process.returncode == 0


@pytest.mark.parametrize(
    ("missing", "library"),
    [
        ("flask.globals:_cv_request", "flask"),
        ("granian.wsgi:_callback_wrapper", "granian"),
        ("granian.server.mp:MPServer", "granian"),
    ],
)
def test_without_a_private_name_the_service_runs_and_says_so_once(
    champion: Store, serve: Serve, loan: dict[str, Any], missing: str, library: str
) -> None:
    service = serve(champion, workers=2, python=(*UNTESTED, "--without", missing, "--"))

    check_service(service, loan, [library])
    [warning] = warnings(service)
    expected = f"{library} {version(library)}: it lacks private parts that the tested version has"
    assert warning.startswith(expected)
    assert missing.rpartition(":")[2] in warning
    assert f"for full speed, install {library}=={TESTED_VERSIONS[library][0]}" in warning


@pytest.mark.parametrize("name", ["serve", "train", "dev"])
def test_what_is_locked_is_tested(name: str) -> None:
    lines = (REQUIREMENTS / f"{name}.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split()[0].split("==") for line in lines if "==" in line)
    for library, versions in TESTED_VERSIONS.items():
        assert pinned[library] in versions
