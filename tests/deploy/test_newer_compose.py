"""Starts by `docker compose`, the newer compose: first ever, and after its volumes are removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import requests

from deploy.deployment import Deployment, clone, inspect, sh, wait_for


def test_the_newer_compose_starts_it_too_and_anew_once_its_volumes_are_gone(
    checkout: Path, tmp_path: Path
) -> None:
    tool = ["docker", "compose"]
    if subprocess.run([*tool, "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no `docker compose`: the newer compose is not tested")
    deployment = Deployment(
        clone(tmp_path / "peerloan"), "peerloan-test-newer", PEERLOAN_RELEASE="test-newer"
    )
    deployment.tool = tool
    images = [f"peerloan/{name}:test-newer" for name in ("ms_flask_app", "ms_model")]
    deployment.compose("down", "--volumes")  # left by an interrupted run
    subprocess.run(["docker", "rmi", "--force", *images], capture_output=True, check=False)
    try:
        done = deployment.ask("up", "-d")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "pull" not in done.stderr.lower()
        sh("docker", "image", "inspect", *images)
        first_secrets = deployment.secrets()
        assert len(set(first_secrets)) == 2
        ask = f"http://localhost:{deployment.local}/healthz"
        wait_for("an answer", lambda: requests.get(ask, timeout=5).ok)
        deployment.compose("down", "--volumes")
        deployment.compose("up", "-d", "--build")
        assert set(deployment.secrets()).isdisjoint(first_secrets)
        wait_for("an answer", lambda: requests.get(ask, timeout=5).ok)
        assert inspect(deployment.containers("ledger")[0])["State"]["Health"]["Status"] == "healthy"
    finally:
        deployment.compose("down", "--volumes")
