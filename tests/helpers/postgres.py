"""A PostgreSQL server of the tests' own, from Debian's package, as a user that is not root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from helpers.programs import program

USER = "peerloan"


def children(process: int) -> list[int]:
    """The processes that a process has started and that run."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]


class Postgres:
    """A server with its data in a temporary folder."""

    def __init__(self, primary: Postgres | None = None, /, **settings: object) -> None:
        """`primary`: have it be the standby of another one."""
        self.folder = Path(tempfile.mkdtemp(prefix="peerloan-postgres-", dir="/tmp"))
        self.data = self.folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._user = None
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._user = nobody.pw_uid
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._made = 0
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
        # A test's applications keep theirs until the tests end.
        usual = {"listen_addresses": "127.0.0.1", "port": self.port, "max_connections": 500}
        settings = usual | settings
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
        """Stop it at once, with whatever is connected."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    def freeze(self) -> None:
        """Stop its processes without a word to who is connected, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Who starts the others is stopped first.
        for process in (self.process.pid, *children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def new(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"ledger_{self._made}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def run(self, statement: str) -> None:
        """Have it do something, outside of its databases."""
        with psycopg.connect(self.url("postgres", "postgresql"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def url(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        """A database's URL."""
        return f"{scheme}://{USER}@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        """Stop it and remove its data."""
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)
