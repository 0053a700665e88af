"""Compare WSGI servers: throughput, response times, memory, and the cost of a reload or a kill.

python bench/servers.py [--seconds N] [--nginx]

Measures each server with one worker (on one core, the load on another) and with two (on both
cores): the service with a scorecard, an empty Flask view, and a view that waits 5 ms, as for a
commit, with 32 requests at once. `--nginx` also measures through a local Nginx.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

import load
from peerloan.loan import default_definition
from side import free_port

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
SERVERS = {
    "gunicorn sync": ("-k", "sync"),
    "gunicorn gthread": ("-k", "gthread", "--threads", "32"),
    "gunicorn gevent": ("-k", "gevent"),
    "gunicorn shipped": ("-c", "python:peerloan.service.gunicorn_conf"),
    "granian": (),
}
NGINX = """
worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream app {{ server 127.0.0.1:{to}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{at};
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    parser.add_argument("--nginx", action="store_true", help="also measure through Nginx")
    parser.add_argument(
        "--server", action="append", choices=SERVERS, help="measure only this server; repeatable"
    )
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    console = Console(width=150)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        console.print("training on the built-in sample …")
        tokens = Path(folder) / "tokens"
        environment = os.environ | {"PEERLOAN_STORE": str(store), "PEERLOAN_TOKENS": str(tokens)}
        command = [str(BIN / "peerloan"), "bootstrap"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        command = [str(BIN / "peerloan"), "token", "new", "bench"]
        made = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        head = {"Authorization": f"Bearer {made.stdout.strip()}"}
        body = json.dumps({f.name: f.default for f in default_definition().fields}).encode()
        os.sched_setaffinity(0, {cores[-1]})
        titles = ("server", "workers", "path", "requests/s", "of empty", "p50 ms", "p99 ms")
        half = ("p99 ms at half load", "MB a worker", "view that waits 5 ms: requests/s", "p99 ms")
        trouble = ("failed at SIGHUP", "failed at kill -9")
        table = Table(*titles, *half, *trouble)
        for name in options.server or SERVERS:
            if "gevent" in name and importlib.util.find_spec("gevent") is None:
                console.print(f"{name}: not installed here (pip install gevent)")
                continue
            for workers in (1, 2):
                pinned = set(cores) if workers > 1 else {cores[0]}
                for nginx in (False, True) if options.nginx else (False,):
                    console.print(f"{name}, {workers} …")
                    message = load.post("/v1/predictions", body, head)
                    row = _row(name, workers, pinned, nginx, environment, message, options.seconds)
                    table.add_row(name, str(workers), "Nginx" if nginx else "direct", *row)
        console.print(table)


def _row(
    name: str,
    workers: int,
    cores: set[int],
    nginx: bool,
    environment: dict[str, str],
    message: bytes,
    seconds: float,
) -> list[str]:
    with _server(name, "empty:application", workers, cores, nginx, environment) as (_, port):
        empty = _measure(port, message, seconds)
        waiting = load.run(port, load.post("/wait", b"{}"), seconds)
    ours = "peerloan.service.wsgi:application"
    with _server(name, ours, workers, cores, nginx, environment) as (process, port):
        full = _measure(port, message, seconds)
        at_half = load.run(port, message, seconds, rate=full.rate / 2)
        memory = _memory(process.pid)
        reload = _failed(port, message, lambda: process.send_signal(signal.SIGHUP))
        time.sleep(7)  # some servers end if a worker dies right after its start
        kill = _failed(port, message, lambda: os.kill(_children(process.pid)[-1], signal.SIGKILL))
    return [
        f"{full.rate:,.0f}",
        f"{full.rate / empty.rate:.0%}" if empty.rate else "-",
        f"{full.percentile(0.5) * 1000:.2f}",
        f"{full.percentile(0.99) * 1000:.2f}",
        f"{at_half.percentile(0.99) * 1000:.2f}",
        f"{memory:.0f}",
        f"{waiting.rate:,.0f}",
        f"{waiting.percentile(0.99) * 1000:.1f}",
        str(reload),
        str(kill),
    ]


def _measure(port: int, message: bytes, seconds: float) -> load.Load:
    load.run(port, message, seconds=1.0)  # warm
    return load.run(port, message, seconds)


def _failed(port: int, message: bytes, trouble: Callable[[], None]) -> int:
    """Send requests on new connections for six seconds. Return how many got no 200."""
    timer = threading.Timer(1.0, trouble)
    timer.start()
    failed = 0
    until = time.monotonic() + 6
    closing = message.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(closing)
                failed += not connection.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            failed += 1
        time.sleep(0.002)
    timer.join()
    return failed


@contextlib.contextmanager
def _server(
    name: str,
    factory: str,
    workers: int,
    cores: set[int],
    nginx: bool,
    environment: dict[str, str],
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    if name == "granian":
        code = (
            "import sys; from peerloan.web.server.granian import run; "
            f"run({factory!r}, '127.0.0.1', {port}, {workers})"
        )
        command = [sys.executable, "-c", code]
    else:
        module, _, function = factory.partition(":")
        where = ("-b", f"127.0.0.1:{port}", "-w", str(workers), "--keep-alive", "75")
        command = [str(BIN / "gunicorn"), *SERVERS[name], *where, f"{module}:{function}()"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(_process(command, cores, environment))
        _wait(port)
        if nginx:
            at = free_port()
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            conf = Path(folder) / "nginx.conf"
            conf.write_text(NGINX.format(folder=folder, to=port, at=at))
            binary = shutil.which("nginx") or "/usr/sbin/nginx"
            proxy = [binary, "-c", str(conf), "-g", "daemon off;"]
            stack.enter_context(_process(proxy, cores, environment))
            _wait(at)
            port = at
        yield process, port


@contextlib.contextmanager
def _process(
    command: list[str], cores: set[int], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        cwd=HERE,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            message = b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(message)
                if connection.recv(100).startswith(b"HTTP/1.1 200"):
                    return
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")


def _children(master: int) -> list[int]:
    text = Path(f"/proc/{master}/task/{master}/children").read_text()
    return [int(child) for child in text.split()]


def _memory(master: int) -> float:
    """Return the resident megabytes of the largest worker."""
    found = []
    for child in _children(master):
        status = Path(f"/proc/{child}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        found.append(int(line.split()[1]) / 1024)
    return max(found)


if __name__ == "__main__":
    main()
