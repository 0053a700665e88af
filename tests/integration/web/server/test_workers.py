"""The server's processes: workers that die, and a main process that does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.ports import free_port
from helpers.service import Serve, Service, settings
from peerloan.registry import Store
from peerloan.web.server.workers import Restarts


def children(pid: int) -> list[int]:
    """The processes that a process started and that still run."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, found) if is_running(child)]


def is_running(pid: int) -> bool:
    """Whether a process runs: neither gone, nor a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(service: Service, pids: list[int]) -> None:
    """Kill processes, and wait until they are gone."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    service.wait_for(lambda: not any(map(is_running, pids)))


def deaths(service: Service) -> list[dict[str, Any]]:
    """The log's lines about workers that died."""
    lines = (json.loads(line) for line in service.log.read_text().splitlines() if line[:1] == "{")
    return [line for line in lines if "ended unexpectedly" in line["message"]]


def test_a_server_goes_on_when_workers_are_killed_again_and_again(
    champion: Store, serve: Serve, loan: dict[str, Any]
) -> None:
    service = serve(champion, workers=2)
    both = children(service.process.pid)
    assert len(both) == 2
    for killed in (1, 2, 1, 2):
        kill(service, children(service.process.pid)[:killed])
        service.wait_for(lambda: len(children(service.process.pid)) == 2)
        service.wait_for(
            lambda: requests.post(f"{service.url}/v1/predictions", json=loan, timeout=5).ok
        )
        assert service.process.poll() is None
    said = deaths(service)
    assert len(said) == 6
    assert all(line["level"] == "error" and "exit code -9" in line["message"] for line in said)
    assert "starts again in 0 s" in said[0]["message"]
    assert "starts again in 1 s" in service.log.read_text()


def kill_until_pause(service: Service, seconds: int, kept: int | None = None) -> None:
    """Kill the workers, all but one if it is `kept`, until the next start is so far away."""
    until = time.monotonic() + 60
    while f"starts again in {seconds} s" not in service.log.read_text():
        assert time.monotonic() < until, service.log.read_text()
        for pid in children(service.process.pid):
            if pid != kept:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def test_the_worker_that_lives_answers_while_the_other_is_in_pause(
    champion: Store, serve: Serve
) -> None:
    service = serve(champion, workers=2)
    kept, *_ = children(service.process.pid)
    kill_until_pause(service, 4, kept)
    for _ in range(5):
        assert requests.get(f"{service.url}/healthz", timeout=5).ok
    assert children(service.process.pid) == [kept]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_while_a_worker_is_in_pause(
    champion: Store, serve: Serve, number: signal.Signals
) -> None:
    service = serve(champion)
    kill_until_pause(service, 2)
    started = service.loaded()
    service.process.send_signal(number)
    assert service.process.wait(timeout=30) == 0
    assert service.loaded() == started


def test_a_reload_brings_back_a_worker_in_pause(champion: Store, serve: Serve) -> None:
    service = serve(champion)
    kill_until_pause(service, 4)
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: requests.get(f"{service.url}/healthz", timeout=5).ok)
    assert len(children(service.process.pid)) == 1


def test_a_worker_that_dies_during_a_reload_is_restarted_and_counted_once(
    champion: Store, serve: Serve
) -> None:
    service = serve(champion, workers=2)
    first, port = children(service.process.pid), int(service.url.rpartition(":")[2])
    # An old worker that is asked to end waits for this body.
    with contextlib.ExitStack() as stalled:
        for _ in range(8):
            client = stalled.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(
                b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: len(set(children(service.process.pid)) - {*first}) == 2)
        new = set(children(service.process.pid)) - {*first}
        kill(service, [*new])
        # Sooner than the old workers' grace: the clients above are still there.
        service.wait_for(lambda: len(set(children(service.process.pid)) - {*first, *new}) == 2)
        service.wait_for(lambda: requests.get(f"{service.url}/healthz", timeout=5).ok)
    assert len(deaths(service)) == 2


def test_workers_end_with_the_process_that_started_them(champion: Store, serve: Serve) -> None:
    service = serve(champion, workers=2)
    workers = children(service.process.pid)
    service.process.kill()
    service.process.wait()
    until = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(is_running, workers))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(service.url.rpartition(":")[2])))


@pytest.mark.longer
def test_a_server_whose_workers_never_start_ends_with_the_reason(tmp_path: Path) -> None:
    """After as many tries as there are; one that was up once goes on trying."""
    code = (
        "import sys\n"
        "from peerloan.web.server import workers\n"
        "from peerloan.web.server.granian import run\n"
        "try:\n"
        "    run('no_such_module:application', '127.0.0.1', int(sys.argv[1]), 2)\n"
        "except workers.NoWorkerStarted as error:\n"
        "    sys.exit(f'ended: {error}')\n"
    )
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-c", code, str(port)],
        env=os.environ | settings(tmp_path / "store"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "a worker could not start: No module named 'no_such_module'" in done.stderr
    # A line of the log may come behind it.
    ended = [line for line in done.stderr.splitlines() if line.startswith("ended: ")]
    assert len(ended) == 1
    assert "no worker could start in 5 tries each; the last one ended with exit" in ended[0]


def test_pauses_grow_up_to_half_a_minute_and_begin_anew_after_a_quiet_time() -> None:
    restarts = Restarts()
    pauses = [restarts.record_death(now=100.0, lifetime=1.0) for _ in range(8)]
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]
    assert restarts.due == 130.0
    assert restarts.record_death(now=300.0, lifetime=61.0) == 0
    assert restarts.record_death(now=300.0, lifetime=1.0) == 1
