"""A checkout of the project as containers: how the tests start it and ask it."""

from __future__ import annotations

import contextlib
import json
import os
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
# What a checkout holds that images and compose need.
PARTS = (
    *(".dockerignore", ".env.example", "LICENSE", "README.md", "docker-compose.yml"),
    *("pyproject.toml", "deploy", "requirements", "src"),
    *(f"{folder}/.gitignore" for folder in ("books", "certificates", "rules", "secrets")),
)
RELEASE = "test"
COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def sh(*command: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return what it printed; fails the test with it if it fails."""
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
    """What the engine knows of a container."""
    found: dict[str, Any] = json.loads(sh("docker", "inspect", container))[0]
    return found


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition holds; an address that can't be reached yet is not one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(requests.RequestException, OSError):
            if condition():
                return
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what}")


def copy_checkout(folder: Path) -> Path:
    """What a fresh checkout of this project holds, as far as a deployment needs it."""
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
    """A clone of this project, with what has changed here since the last commit."""
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
    """A compose project in a checkout of its own, on ports of this machine alone."""

    def __init__(self, folder: Path, name: str, **settings: str) -> None:
        self.folder, self.name, self.tool = folder, name, COMPOSE
        self.http, self.https, self.local = free_port(), free_port(), free_port()
        self.settings = {
            "COMPOSE_PROJECT_NAME": name,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "PEERLOAN_RELEASE": RELEASE,
            "PEERLOAN_ADDRESS": "127.0.0.1",
            "PEERLOAN_HTTP_PORT": str(self.http),
            "PEERLOAN_HTTPS_PORT": str(self.https),
            "PEERLOAN_LOCAL_PORT": str(self.local),
            "PEERLOAN_RATE": "5000",
            **settings,
        }
        self.url = f"https://127.0.0.1:{self.https}"
        self.token = ""

    def ask(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """`docker-compose …` in the checkout, whatever becomes of it."""
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
        """`docker-compose …` in the checkout; fails the test if it fails."""
        return sh(*self.tool, *arguments, env=self.settings | settings, cwd=self.folder)

    def containers(self, service: str, *options: str) -> list[str]:
        """The ids of a service's running containers, or as the options of `docker ps` say."""
        labels = (f"com.docker.compose.{key}" for key in ("project", "service"))
        filters = [
            f"label={label}={value}"
            for label, value in zip(labels, (self.name, service), strict=True)
        ]
        return sh(
            *("docker", "ps", "-q", *options), *(each for f in filters for each in ("--filter", f))
        ).split()

    def sql(self, statement: str) -> list[str]:
        """Ask the ledger's database; the rows, their values with | between."""
        (container,) = self.containers("ledger")
        command = ["psql", "--username", "postgres", "--dbname", "peerloan", "-Atqc", statement]
        return sh("docker", "exec", container, *command).splitlines()

    def secret(self, service: str, name: str = "ledger_password") -> str:
        """A secret, as a service's container reads it."""
        container = self.containers(service)[0]
        return sh("docker", "exec", container, "cat", f"/run/secrets/{name}")

    def make_token(self) -> None:
        """A token for the tests, made as an operator does."""
        made = self.compose("run", "--rm", "-T", "ms_model", "token", "new", "tests")
        self.token = made.strip()

    def let_in(self) -> bool:
        """Whether every worker of every container knows the token."""
        # Each looks for new tokens once a second, and those that answer here may not be all.
        time.sleep(1.5)
        return all(self.get("/v1/models").status_code == 200 for _ in range(20))

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET through Nginx, over TLS."""
        return self._ask("GET", path, options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """POST through Nginx, over TLS."""
        return self._ask("POST", path, options)

    def _ask(self, method: str, path: str, options: dict[str, Any]) -> requests.Response:
        head = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return requests.request(
            method, self.url + path, headers=head, verify=False, timeout=30, **options
        )

    def serving(self) -> str | None:
        """The version that an application container serves."""
        version: str | None = self.get("/readyz").json().get("model", {}).get("version")
        return version

    def settled(self, version: str | None = None) -> bool:
        """Whether every worker of every container serves a version (this one), as it seems."""
        seen = {self.serving() for _ in range(20)}
        return len(seen) == 1 and seen != {None} and version in {None, *seen}

    def log(self, container: str) -> list[dict[str, Any]]:
        """Nginx's access log."""
        text = subprocess.run(
            ["docker", "logs", container], capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in text.stdout.splitlines() if line.startswith("{")]
