"""Measure one server on one core: check its answer, load it from another core, and weigh it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import load

READY_SECONDS = 60.0


class Failed(Exception):
    """A side can't be measured. The message is the reason, in one line."""


@dataclass(frozen=True)
class Side:
    """A server to measure: how to start it, what to send, and what a right answer is.

    `{port}` in the command or in a setting is replaced by the port to listen on.
    """

    name: str
    command: list[str]
    settings: dict[str, str]
    body: object
    right: Callable[[Any], bool]
    path: str = "/v1/predictions"
    ready: str = "/readyz"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """The results of a load, and the megabytes of the side's processes after it."""

    load: load.Load
    megabytes: float


def measure(side: Side, core: int, seconds: float) -> Measured:
    """Start a side, check its answer, warm it up, and measure it. Raises Failed."""
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in side.command]
    settings = {name: text.replace("{port}", str(port)) for name, text in side.settings.items()}
    body = json.dumps(side.body).encode()
    message = load.post(side.path, body, side.headers)
    with running(command, settings, core, port, side.ready) as process:
        check(side, port, body)
        try:
            load.run(port, message, seconds=1.0)  # warm
            found = load.run(port, message, seconds)
        except (OSError, ValueError) as error:
            raise Failed(f"under load: {error}") from None
        if not found.answered:
            raise Failed("gave no answer under load")
        return Measured(found, _megabytes(process.pid))


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running(
    command: list[str], settings: dict[str, str], core: int, port: int, ready: str = "/readyz"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on one core, and wait until it is ready.

    Raises Failed with the last line that it wrote.
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command,
                env=os.environ | settings,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # so that its child processes can be ended too
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        except OSError as error:
            raise Failed(f"did not start: {error}") from None
        try:
            _wait(process, f"http://127.0.0.1:{port}{ready}", said)
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, said: IO[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=1).close()
            return
        time.sleep(0.1)
    said.seek(0)
    lines = said.read().decode(errors="replace").split("\n")
    why = "did not start" if process.poll() is not None else "did not become ready"
    raise Failed(f"{why}: {last_line(lines)}")


def last_line(lines: list[str]) -> str:
    """Return the last line that is not empty."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def check(side: Side, port: int, body: bytes) -> None:
    """Send one request, and check the answer, so that no errors are measured. Raises Failed."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{side.path}",
        body,
        {"Content-Type": "application/json", **side.headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise Failed(
            f"answers {error.code}: {error.read()[:200].decode(errors='replace')}"
        ) from None
    except OSError as error:
        raise Failed(f"does not answer: {error}") from None
    try:
        right = side.right(json.loads(text))
    except (ValueError, LookupError, TypeError):
        right = False
    if not right:
        raise Failed(f"gives a wrong answer: {text[:200].decode(errors='replace')}")


def _megabytes(root: int) -> float:
    """Return the memory of a process and its descendants. Shared pages count once.

    Pages of files, mostly libraries, count in full even if unrelated processes map them too. So the
    figure does not depend on what else runs on the machine.
    """
    kilobytes = 0
    files: dict[tuple[str, ...], int] = {}
    for process in _tree(root):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        kilobytes += int(rollup.partition("Pss_Anon:")[2].split()[0])
        part: tuple[str, ...] = ()
        resident = 0
        for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
            name, *rest = line.split()
            if not name.endswith(":"):
                part = tuple(rest[1:4])  # offset, device, inode
            elif name == "Rss:":
                resident = int(rest[0])
            elif name == "Anonymous:" and part[2] != "0":
                files[part] = max(files.get(part, 0), resident - int(rest[0]))
    return (kilobytes + sum(files.values())) / 1024


def _tree(root: int) -> Iterator[int]:
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))
