"""Starts a checkout of the project in containers, and sends requests and commands to it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).parents[2]
# The files of a checkout that the images and compose need.
PARTS = (
    *(".dockerignore", ".env.example", "LICENSE", "README.md", "docker-compose.yml"),
    *("pyproject.toml", "deploy", "requirements", "src"),
    *(f"{folder}/.gitignore" for folder in ("books", "certificates", "rules", "secrets")),
)
RELEASE = "test"
PORTS = ("PEERLOAN_HTTP_PORT", "PEERLOAN_HTTPS_PORT", "PEERLOAN_LOCAL_PORT")
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def sh(*command: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return its standard output. If it fails, the test fails with its output."""
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | (env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def inspect(container: str) -> dict[str, Any]:
    """Return the engine's description of a container."""
    description: dict[str, Any] = json.loads(sh("docker", "inspect", container))[0]
    return description


def free_port() -> int:
    """A free TCP port, from below the range of outgoing connections.

    A port of that range could be taken by a client before a container publishes it.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition is true. Connection errors count as false."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(requests.RequestException, OSError):
            if condition():
                return
        time.sleep(0.1)
    pytest.fail(f"not within {seconds} s: {what}")


def copy_checkout(folder: Path) -> Path:
    """Copy the files of this checkout that a deployment needs."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / part).parent.mkdir(exist_ok=True)
            shutil.copy2(source, folder / part)
    return folder


def clone(folder: Path) -> Path:
    """Clone this project, including uncommitted changes."""
    sh("git", "clone", "--quiet", ROOT, folder)
    for command in (
        ["diff", "--name-only", "HEAD"],
        ["ls-files", "--others", "--exclude-standard"],
    ):
        for name in sh("git", *command, "-z", cwd=ROOT).split("\0")[:-1]:
            (folder / name).unlink(missing_ok=True)
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
    return folder


class Deployment:
    """A compose project in its own checkout, on ports of this machine's loopback address."""

    def __init__(self, folder: Path, name: str, **settings: str) -> None:
        self.folder, self.name, self.tool = folder, name, COMPOSE
        self.settings = {
            "COMPOSE_PROJECT_NAME": name,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "PEERLOAN_RELEASE": RELEASE,
            "PEERLOAN_ADDRESS": "127.0.0.1",
            "PEERLOAN_RATE": "5000",
            **{name: str(free_port()) for name in PORTS},
            **settings,
        }
        self.http, self.https, self.local = (int(self.settings[name]) for name in PORTS)
        self.url = f"https://127.0.0.1:{self.https}"
        self.token = ""

    def ask(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `docker-compose …` in the checkout; the caller checks the exit code."""
        return subprocess.run(
            [*self.tool, *arguments],
            env=os.environ | self.settings | settings,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def compose(self, *arguments: object, **settings: str) -> str:
        """Run `docker-compose …` and return its output. If it fails, the test fails."""
        return sh(*self.tool, *arguments, env=self.settings | settings, cwd=self.folder)

    def containers(self, service: str, *options: str) -> list[str]:
        """The ids of a service's running containers. Options are those of `docker ps`."""
        labels = (f"com.docker.compose.{key}" for key in ("project", "service"))
        filters = [
            f"label={label}={value}"
            for label, value in zip(labels, (self.name, service), strict=True)
        ]
        return sh(
            *("docker", "ps", "-q", *options), *(f"--filter={filter_}" for filter_ in filters)
        ).split()

    def sql(self, statement: str) -> list[str]:
        """Run a statement in the ledger's database. Returns its rows, with | between the values."""
        (container,) = self.containers("ledger")
        command = ["psql", "--username", "postgres", "--dbname", "peerloan", "-Atqc", statement]
        return sh("docker", "exec", container, *command).splitlines()

    def secret(self, service: str, name: str = "ledger_password") -> str:
        """Read a secret in a service's container."""
        container = self.containers(service)[0]
        return sh("docker", "exec", container, "cat", f"/run/secrets/{name}")

    def secrets(self) -> list[str]:
        """The password as each service reads it, and the webhook's secret."""
        services = ("ledger", "ms_flask_app", "ms_model", "ms_monitor")
        return [*map(self.secret, services), self.secret("ms_monitor", "webhook_secret")]

    def run(self, service: str, *command: str, release: str = "") -> tuple[int, str]:
        """Run a command of a service in a new container; returns its exit code and output."""
        settings = {"PEERLOAN_RELEASE": release} if release else {}
        done = self.ask("run", "--rm", "--no-deps", "-T", service, *command, **settings)
        return done.returncode, done.stdout + done.stderr

    def make_token(self) -> None:
        """Make a token for the tests, as an operator does."""
        token = self.compose("run", "--rm", "-T", "ms_model", "token", "new", "tests")
        self.token = token.strip()

    def token_works(self) -> bool:
        """Whether every worker of every container accepts the token."""
        # A worker looks for new tokens once a second. The 20 requests may miss a worker.
        time.sleep(1.5)
        return all(self.get("/v1/models").status_code == 200 for _ in range(20))

    def get(self, path: str, **options: Any) -> requests.Response:
        """Send a GET through Nginx, over TLS."""
        return self._request("GET", path, options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """Send a POST through Nginx, over TLS."""
        return self._request("POST", path, options)

    def _request(self, method: str, path: str, options: dict[str, Any]) -> requests.Response:
        head = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return requests.request(
            method, self.url + path, headers=head, verify=False, timeout=30, **options
        )

    def serving(self) -> str | None:
        """The model version that the container behind one request serves."""
        version: str | None = self.get("/readyz").json().get("model", {}).get("version")
        return version

    def settled(self, version: str | None = None) -> bool:
        """Whether 20 requests in turn are served by one version, and by this one if it is named."""
        versions = {self.serving() for _ in range(20)}
        return len(versions) == 1 and versions != {None} and version in {None, *versions}

    def log(self, container: str) -> list[dict[str, Any]]:
        """The access log of an Nginx container."""
        text = subprocess.run(
            ["docker", "logs", container], capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in text.stdout.splitlines() if line.startswith("{")]
