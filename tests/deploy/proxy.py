"""A proxy with other settings, and the applications that it may be put before."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import requests

from deploy.deployment import Deployment, free_port, sh, wait_for

# Replaces the application: answers with its number and the request's headers, or breaks off POSTs.
ECHO = """
import http.server, json, os, sys

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.command == "POST":
            self.rfile.read(int(self.headers["Content-Length"]))
            if os.environ["BREAKS"] == "yes":
                print("broke off:", self.headers["Idempotency-Key"], flush=True)
                self.close_connection = True
                return
        body = json.dumps({"who": os.environ["WHO"], "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

http.server.ThreadingHTTPServer(("", 5000), Echo).serve_forever()
"""


class Proxy:
    """A further Nginx beside that of the deployment, with other settings."""

    def __init__(self, deployment: Deployment, certificates: Path | None, **settings: str) -> None:
        self.http, self.https, self.local = free_port(), free_port(), free_port()
        network = f"{deployment.name}_front"
        environment = {"PEERLOAN_RATE": "5000", "PEERLOAN_HTTPS_PORT": str(self.https), **settings}
        volumes = [f"{deployment.folder}/deploy/nginx:/etc/nginx:ro"]
        if certificates is not None:
            volumes.append(f"{certificates}:/certificates:ro")
        self.container = sh(
            *("docker", "create", "--read-only", "--cap-drop", "ALL", "--user", "101:101"),
            *("--tmpfs", "/tmp", "--network", network, "--entrypoint", "sh"),
            *(f"--env={name}={value}" for name, value in environment.items()),
            *(f"--volume={volume}" for volume in volumes),
            *("-p", f"127.0.0.1:{self.http}:8080", "-p", f"127.0.0.1:{self.https}:8443"),
            *("-p", f"127.0.0.1:{self.local}:8082"),
            *("nginx:stable-bookworm", "/etc/nginx/start.sh"),
        ).strip()
        sh("docker", "network", "connect", f"{deployment.name}_back", self.container)
        sh("docker", "start", self.container)
        network_of = f'(index .NetworkSettings.Networks "{network}").Gateway'
        self.peer = sh("docker", "inspect", "-f", f"{{{{{network_of}}}}}", self.container).strip()

    def ask(self, path: str, plain: bool = False, **options: Any) -> requests.Response:
        """GET, or POST if there is something to send."""
        method = "POST" if "json" in options or "data" in options else "GET"
        address = f"http://127.0.0.1:{self.http}" if plain else f"https://127.0.0.1:{self.https}"
        return requests.request(
            method, address + path, verify=False, timeout=30, allow_redirects=False, **options
        )

    def errors(self) -> str:
        """The error log."""
        done = subprocess.run(["docker", "logs", self.container], capture_output=True, text=True)
        return done.stderr


def entry(deployment: Deployment, container: str, path: str) -> dict[str, Any]:
    """The newest line of a proxy's access log about a path; waits until there is one."""
    lines: list[dict[str, Any]] = []

    def logged() -> bool:
        lines[:] = [line for line in deployment.log(container) if line["path"] == path]
        return bool(lines)

    wait_for(f"a line about {path}", logged)
    return lines[-1]


def context(**limits: ssl.TLSVersion) -> ssl.SSLContext:
    """A TLS client that accepts any certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for name, value in limits.items():
        setattr(client, name, value)
    return client
