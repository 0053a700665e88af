"""A PostgreSQL server for tests, from Debian's package; it does not run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from helpers.ports import free_port
from helpers.programs import program

USER = "peerloan"


def children(process: int) -> list[int]:
    """The running child processes of a process."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


class Postgres:
    """A server with its data in a temporary folder."""

    def __init__(self, primary: Postgres | None = None, /, **settings: object) -> None:
        """`primary`: start as its standby."""
        self.folder = Path(tempfile.mkdtemp(prefix="peerloan-postgres-", dir="/tmp"))
        self.data = self.folder / "data"
        self.port = free_port()
        self._user = None
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._user = nobody.pw_uid
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._databases = 0
        if primary is not None:
            source = "-h", "127.0.0.1", "-p", primary.port, "-U", USER
            self._run("pg_basebackup", "-D", self.data, *source, "-R", "-c", "fast")
        else:
            self._run(
                "initdb", "-D", self.data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C"
            )
        self.start(**settings)

    def _run(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [str(program(name)), *map(str, arguments)],
            user=self._user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self, **settings: object) -> None:
        """Start the server and wait until it answers."""
        # The applications of a test keep their connections until the test ends.
        defaults = {"listen_addresses": "127.0.0.1", "port": self.port, "max_connections": 500}
        settings = defaults | settings
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(program("postgres")), "-D", str(self.data), "-k", str(self.folder), *options],
                user=self._user,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres", "postgresql"), connect_timeout=2).close()
                return
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server at once; open connections are cut."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    def freeze(self) -> None:
        """Suspend its processes until `thaw`; connections stay open but get no answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume its processes."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The parent is suspended first: it would start new children.
        for process in (self.process.pid, *children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def new(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"ledger_{self._databases}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, statement: str) -> None:
        """Run a statement in the maintenance database."""
        with psycopg.connect(self.url("postgres", "postgresql"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def url(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        """The URL of a database."""
        return f"{scheme}://{USER}@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        """Stop the server and remove its data."""
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)
