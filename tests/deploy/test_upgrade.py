"""Updates a deployment of the release before by the guide's commands; it keeps its password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deploy.deployment import ROOT, Deployment, copy_checkout, inspect, sh, wait_for

BEFORE = Path(__file__).parent / "release_before/docker-compose.yml"
# What Nginx's files did not have: it runs on while they are replaced.
NEW_IN_NGINX = {
    "nginx.conf": "    include /tmp/peerloan/local*.conf;\n",
    "start.sh": "    echo 'server { listen 8082; include site.conf; }' >\"$here/local.conf\"\n",
}


@pytest.fixture
def earlier(checkout: Path, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment of the release before, with one application container and no champion."""
    folder = copy_checkout(tmp_path / "peerloan")
    deployment = Deployment(folder, "peerloan-test-upgrade", PEERLOAN_APPS="1")
    deployment.compose("down", "--volumes", "--remove-orphans")  # left by an interrupted run
    (folder / "docker-compose.yml").write_text(BEFORE.read_text("utf-8"), "utf-8")
    for name, line in NEW_IN_NGINX.items():
        path = folder / "deploy/nginx" / name
        assert path.read_text("utf-8").count(line) == 1
        path.write_text(path.read_text("utf-8").replace(line, ""), "utf-8")
    sh("sh", "deploy/prepare.sh", cwd=folder)
    deployment.compose("up", "-d", "nginx", "ms_flask_app", "ms_monitor")
    deployment.make_token()
    wait_for("the token", deployment.token_works)
    yield deployment
    deployment.compose("down", "--volumes", "--remove-orphans")


def test_an_earlier_deployment_goes_on_with_its_password(earlier: Deployment) -> None:
    brought = {
        name: (earlier.folder / "secrets" / name).read_text("utf-8")
        for name in ("ledger_password", "webhook_secret")
    }
    ledger, application = (earlier.containers(name)[0] for name in ("ledger", "ms_flask_app"))
    for name in ("docker-compose.yml", *(f"deploy/nginx/{name}" for name in NEW_IN_NGINX)):
        (earlier.folder / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")

    guide = (ROOT / "docs/deploy.md").read_text("utf-8").split("\n## A new release\n")[1]
    commands = re.findall(r"```sh\n(.*?)```", guide.split("\n## ")[0], re.S)[0].splitlines()
    assert commands[0] == "docker-compose build"
    for command in commands[1:]:  # the images are there
        sh("sh", "-ec", command, env=earlier.settings, cwd=earlier.folder)
    assert earlier.containers("ledger") == [ledger], "the database was left alone"
    assert earlier.containers("ms_flask_app") != [application]
    check(earlier, brought)

    earlier.compose("up", "-d")
    assert earlier.containers("ledger") != [ledger]
    check(earlier, brought)
    address = f"http://localhost:{earlier.local}/healthz"
    wait_for("plain HTTP", lambda: requests.get(address, timeout=5).ok)


def check(deployment: Deployment, brought: dict[str, str]) -> None:
    """Check that services use the password of before, and that the token still works."""
    for service in ("ledger", "ms_flask_app", "ms_model", "ms_monitor"):
        assert deployment.secret(service) == brought["ledger_password"]
    assert deployment.secret("ms_monitor", "webhook_secret") == brought["webhook_secret"]
    done = deployment.ask("run", "--rm", "-T", "--no-deps", "ledger_upgrade")
    assert "nothing to do" in done.stdout + done.stderr
    wait_for("the token", deployment.token_works)
    (monitor,) = deployment.containers("ms_monitor")
    wait_for("the monitor", lambda: inspect(monitor)["State"]["Health"]["Status"] == "healthy")
