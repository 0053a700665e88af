"""PgBouncer in front of a test's PostgreSQL server, from Debian's package."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from helpers.ports import free_port
from helpers.postgres import USER, Postgres
from helpers.programs import require

_FILE = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
{more}
"""


class PgBouncer:
    """A pooler with its files in a temporary folder."""

    def __init__(self, server: Postgres, mode: str = "transaction", **settings: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="peerloan-pgbouncer-", dir="/tmp"))
        self._server = server
        self.port = free_port()
        users, file = self.folder / "users", self.folder / "pgbouncer.ini"
        users.write_text(f'"{USER}" ""\n')
        more = "\n".join(f"{name} = {value}" for name, value in settings.items())
        values = {"server": server.port, "port": self.port, "users": users}
        file.write_text(_FILE.format(**values, mode=mode, more=more))
        user = None
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            user = nobody.pw_uid
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*require("PgBouncer", "pgbouncer"), str(file)], user=user, stdout=log, stderr=log
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(
                    self.through(self._server.url("postgres")), connect_timeout=5
                ).close()
                return
            assert time.monotonic() < until, self.log
            time.sleep(0.1)

    @property
    def log(self) -> str:
        """The pooler's log."""
        return (self.folder / "log").read_text()

    def through(self, url: str, driver: str = "") -> str:
        """Change the URL of a database so that it leads through the pooler."""
        url = url.replace("+psycopg", driver)
        return url.replace(f":{self._server.port}/", f":{self.port}/")

    def remove(self) -> None:
        """Stop the pooler and remove its files."""
        self._process.terminate()
        self._process.wait(timeout=60)
        shutil.rmtree(self.folder)
