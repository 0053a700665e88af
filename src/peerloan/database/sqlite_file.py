"""SQLite files that can't be written to: why, and how to read them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, NullPool, create_engine

from peerloan.database.errors import LedgerUnavailable, translate_errors


def read_only_reason(file: Path) -> str | None:
    """Return why this process can't write to a file; None if it can, or if there is no file."""
    if not file.exists():
        return None
    writable = _writable(file)
    # SQLite writes to a log next to the file. The log may exist already, in a read-only folder.
    if writable and (_writable(file.parent) or _writable(_log(file))):
        return None
    with contextlib.suppress(OSError):
        if os.statvfs(file).f_flag & os.ST_RDONLY:
            return "its file system is mounted read-only"
    if not writable:
        return f"the file is read-only for this user (mode {_mode(file)})"
    return (
        f"its folder {file.parent} is not writable for this user (mode {_mode(file.parent)}), and "
        "SQLite writes its log there"
    )


@contextlib.contextmanager
def connect_read_only(file: Path) -> Iterator[Connection]:
    """Connect to a file that can't be written to.

    Raises LedgerUnavailable if the file needs its log and this can't be read, or if another process
    changes the file meanwhile.
    """
    before, has_log = file.stat(), _has_log(file)
    address = f"file:{quote(str(file.absolute()))}?mode=ro" + ("" if has_log else "&immutable=1")

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    with engine.connect() as connection:
        if has_log:
            _expect_readable_log(connection, file)
        yield connection
    after = file.stat()
    # `immutable` makes SQLite skip its own check for changes.
    if not has_log and (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
        raise LedgerUnavailable(f"{file}: was changed while it was read; try again")


def copy_file(file: Path, to: Path) -> None:
    """Copy a read-only file with its log's content. Raises LedgerUnavailable."""
    with (
        translate_errors(),
        connect_read_only(file) as connection,
        contextlib.closing(sqlite3.connect(to)) as copy,
    ):
        driver: Any = connection.connection.driver_connection
        driver.backup(copy)


def _expect_readable_log(connection: Connection, file: Path) -> None:
    driver: Any = connection.connection.driver_connection
    try:
        driver.execute("SELECT 1 FROM sqlite_master").close()
    except sqlite3.OperationalError as error:
        raise LedgerUnavailable(
            f"{file}: can't be read without {_log(file).name}, which contains the newest "
            f"decisions, and the log can't be read in a read-only folder ({error}); copy both "
            "files to a folder that is writable"
        ) from None


def _has_log(file: Path) -> bool:
    """Return whether the file needs its log: it has content, or another process has it open."""
    log = _log(file)
    return log.exists() and (log.stat().st_size > 0 or file.with_name(f"{file.name}-shm").exists())


def _log(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


def _mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o7777:04o}"
