"""A `peerloan serve` process, or another server's, and the environment that it runs in."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from helpers import untested
from helpers.ports import free_port

SERVE = "peerloan serve --host {host} --port {port} --workers {workers}"
GUNICORN = (
    "gunicorn -c python:peerloan.service.gunicorn_conf -b {host}:{port} -w {workers} "
    "peerloan.service.wsgi:application()"
)

PYTHON = ("-m",)
UNTESTED = (untested.__file__,)
# The servers by name. With untested libraries, the service uses their public interfaces only.
SERVERS = {
    "granian": (SERVE, PYTHON),
    "granian-untested": (SERVE, UNTESTED),
    "gunicorn-untested": (GUNICORN, UNTESTED),
}


def settings(store: Path) -> dict[str, str]:
    """The environment of a process on a store, with the tokens in a folder next to it."""
    return {"PEERLOAN_STORE": str(store), "PEERLOAN_TOKENS": str(store.parent / "tokens")}


def bearer(token: str) -> dict[str, str]:
    """The header that authenticates with a token."""
    return {"Authorization": f"Bearer {token}"}


class Service:
    """A `peerloan serve` process, or another server's, and its address.

    `python`: the arguments between the interpreter and the server's command.
    """

    def __init__(
        self,
        store: Path,
        log: Path,
        workers: int,
        host: str = "127.0.0.1",
        server: str = SERVE,
        python: tuple[str, ...] = PYTHON,
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *python),
                    *server.format(host=host, port=port, workers=workers).split(),
                ],
                env=os.environ | settings(store),
                stdout=out,
                stderr=out,
            )

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until a condition holds; fails with the server's log."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(requests.ConnectionError):
                if condition():
                    return
            time.sleep(0.05)
        pytest.fail(f"not within {seconds} s; the log:\n{self.log.read_text()}")

    def serving(self) -> str | None:
        """The version that one worker serves; if `/readyz` hides it, the version that a worker
        loaded last. None while no worker is ready.
        """
        answer = requests.get(f"{self.url}/readyz", timeout=5)
        loaded: list[str] = re.findall(r"serving (\S+) \(digest", self.log.read_text())
        if not answer.ok or not loaded:
            return None
        version: str = answer.json().get("model", {}).get("version", loaded[-1])
        return version

    def loaded(self) -> int:
        """How often a worker has loaded or refused a champion; each worker does so at its start."""
        return len(re.findall(r"serving \S+ \(digest|champion refused", self.log.read_text()))

    def stop(self) -> None:
        """Stop the process."""
        self.process.terminate()
        self.process.wait(timeout=60)


# The fixture `serve`: starts a service on a store.
Serve = Callable[..., Service]
