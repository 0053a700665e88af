"""Separate environments for the peers in `.bench/`, made when they are first needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from side import Failed, last_line

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".bench"


def install(name: str) -> Path:
    """Install the lock of this name, and return the folder with its programs. Raises Failed."""
    lock, home = HERE / "requirements" / f"{name}.txt", CACHE / name
    stamp = home / "lock.sha256"
    made_of = lock.read_bytes() + f"{sys.version} {home}".encode()
    digest = hashlib.sha256(made_of).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        _run(pip)
        stamp.write_text(digest)
    return home / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"did not install: {last_line((done.stdout + done.stderr).splitlines())}")
