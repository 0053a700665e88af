"""Runs the guide's commands unchanged on a bare Debian."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.deployment import RELEASE, ROOT, Deployment, copy_checkout, sh

GUIDE = (ROOT / "docs/deploy.md").read_text("utf-8")
# The image of a plain Debian forbids its packages to start services; so do we.
BARE = "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d"

END = "-- done --"


def commands() -> list[str]:
    """The commands from a bare host to TLS."""
    section = GUIDE.split("## From a bare Debian host to TLS")[1].split("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.S)
    assert block
    return block[1].strip().splitlines()


def test_it_takes_at_most_ten_commands() -> None:
    assert 1 <= len(commands()) <= 10


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def host(checkout: Path, tmp_path: Path) -> Iterator[list[str]]:
    """A host with a checkout only, which uses this machine's engine; the command prefix for it."""
    if not all(map(is_free, (80, 443, 5000))):
        pytest.skip("port 80, 443 or 5000 of this machine is taken")
    deployment = Deployment(copy_checkout(tmp_path / "host" / "peerloan"), "peerloan-guide")
    container = "peerloan-guide-host"
    subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)
    sh(
        *("docker", "run", "--detach", "--name", container, "--network", "host"),
        *("--volume", "/var/run/docker.sock:/var/run/docker.sock"),
        # At the same path as on this machine, since the engine is asked to mount its folders.
        *("--volume", f"{deployment.folder}:{deployment.folder}", "--workdir", deployment.folder),
        # Beside what else is deployed on this machine, and not reachable from another one.
        *(
            "--env",
            f"COMPOSE_PROJECT_NAME={deployment.name}",
            "--env",
            f"PEERLOAN_RELEASE={RELEASE}",
        ),
        *("--env", "PEERLOAN_ADDRESS=127.0.0.1", "--env", "DEBIAN_FRONTEND=noninteractive"),
        *("python:3.11-slim-bookworm", "sleep", "900"),
    )
    sh("docker", "exec", container, "sh", "-c", BARE)
    yield ["docker", "exec", container, "sh", "-c"]
    sh("docker", "rm", "--force", container)
    deployment.compose("down", "--volumes", "--remove-orphans")


def test_from_a_bare_host_to_tls(host: list[str]) -> None:
    # In one shell, as who types them has.
    script = "set -e\n" + "".join(f"{command}\necho '{END}'\n" for command in commands())
    printed = sh(*host, script).split(END)
    assert '"status":"ready"' in printed[4]
    assert '"probability":' in printed[5]
    assert '"status":"ready"' in printed[6]
    assert printed[7].count("Up (") == 6
    assert "unhealthy" not in printed[7]
