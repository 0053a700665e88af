"""The connection to the ledger's database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text

from peerloan import atomic_files, private_files, uuid7
from peerloan.database import tables
from peerloan.database.compatibility import TablesState, check_state, read_state
from peerloan.database.errors import (
    LedgerError,
    LedgerReadOnly,
    LedgerUnavailable,
    first_line,
    translate_errors,
)
from peerloan.database.sqlite_file import connect_read_only, read_only_reason
from peerloan.database.url_options import LOCK_SECONDS, read_url
from peerloan.regular_files import read_regular_text
from peerloan.settings import MAX_SETTINGS_BYTES

# Longest time that a serving process waits for a response of PostgreSQL.
ANSWER_SECONDS = 4.0
# Months for which each upgrade creates PostgreSQL's partitions in advance.
MONTHS_AHEAD = 12


class Database:
    """A database and its tables. Creating an instance connects to nothing.

    Thread safety: any thread may call every method, and each call uses a separate connection of the
    pool. Ownership: it owns the pool, which `renew` empties; a fork must not use its connections.
    Errors: LedgerUnavailable if the database does not respond, its subclass LedgerReadOnly if it
    can't be written to.
    """

    def __init__(
        self, url: str, password_file: Path | None = None, limit_seconds: float | None = None
    ) -> None:
        """`url` is in the syntax of SQLAlchemy or libpq. Raises LedgerError.

        The content of `password_file` replaces the URL's password. `limit_seconds` limits the wait
        for each response of PostgreSQL; None: no limit.
        """
        self._limit = limit_seconds
        self.url = read_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if password_file is not None:
            self.url = self.url.set(password=_read_password(password_file))

    def __str__(self) -> str:
        """Return the URL without the password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path:
        """The path of SQLite's file."""
        return Path(str(self.url.database))

    @property
    def _lock_file(self) -> Path:
        """The file that a process locks while it changes SQLite's tables."""
        return self.file.with_name(f"{self.file.name}.lock")

    @cached_property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, created on first use."""
        if self.is_sqlite:
            engine = create_engine(
                self.url, connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False}
            )
            event.listen(engine, "do_connect", self._make_files_private)
            event.listen(engine, "connect", _prepare_sqlite)
            return engine
        # Import the driver only if it is used.
        from peerloan.database.postgres_sessions import postgres_engine

        return postgres_engine(self.url, self._limit)

    def _make_files_private(self, *_: object) -> None:
        """Make SQLite's files accessible to their owner only, before SQLite opens or creates them.

        SQLite gives its log and shared memory files the mode of the database. No file is opened
        here: closing it would release this process's SQLite locks on it.
        """
        with contextlib.suppress(OSError):  # SQLite reports the faults that matter
            if not self.file.exists():
                atomic_files.publish_file(self.file, b"", private_files.FILE_MODE)
            file = self.file.resolve()  # SQLite creates its other files next to the resolved path
            folder = file.parent
            paths = list(folder.iterdir())
            database_files = [path for path in paths if path.name.startswith(file.name)]
            for path in database_files:
                private_files.close_to_others(path)
            if len(database_files) == len(paths):  # the folder contains nothing else
                private_files.close_to_others(folder)

    def renew(self) -> None:
        """Close all pooled connections, which may lead to a server that has become read-only."""
        self.engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Connect for reading. Raises LedgerUnavailable."""
        with translate_errors(), self._readable() as connection:
            yield connection

    @contextlib.contextmanager
    def _readable(self) -> Iterator[Connection]:
        if self.is_sqlite and read_only_reason(self.file):
            with connect_read_only(self.file) as connection:
                yield connection
            return
        with self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Connect in a transaction that commits at the end, or rolls back on an error.

        Raises LedgerUnavailable.
        """
        self._expect_writable_file()
        with translate_errors(), self.engine.connect() as connection:
            # SQLite's driver would begin at the first change. That is too late for the write lock.
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def expect_writable(self) -> None:
        """Check that the database can be written to, as far as that is possible without writing.

        Raises LedgerReadOnly, or LedgerUnavailable if it does not respond.
        """
        self._expect_writable_file()
        if self.is_sqlite:
            return
        with self.reading() as connection:
            read_only = connection.exec_driver_sql("SHOW transaction_read_only").scalar()
        if read_only == "on":
            self.renew()
            raise LedgerReadOnly(
                f"{self}: the server is read-only (a standby, or default_transaction_read_only)"
            )

    def _expect_writable_file(self) -> None:
        if self.is_sqlite and (reason := read_only_reason(self.file)):
            raise LedgerReadOnly(f"{self.file}: can't be written to: {reason}")

    def check(self) -> None:
        """Check that this release may write to the tables in their current state.

        Raises LedgerError.
        """
        check_state(self, self._read_state())

    def upgrade(self) -> list[int]:
        """Apply the missing migrations of this release and return their numbers.

        A lock lets one process at a time upgrade. Tables of a newer release stay unchanged. Raises
        LedgerError.
        """
        # Alembic is imported only here, so that serving processes don't load it.
        migrate = import_module("peerloan.database.migrations").migrate
        self._expect_writable_file()
        with self._upgrade_lock():
            before = self._read_state().migration
            if before < tables.NEWEST_MIGRATION:
                with translate_errors():
                    migrate(self.engine)
            if not self.is_sqlite:
                self._make_partitions()
            return list(range(before + 1, tables.NEWEST_MIGRATION + 1))

    def prepare(self) -> None:
        """Create the tables in a new SQLite file; otherwise only `check`.

        Several processes may do this at once. Raises LedgerError.
        """
        if self.is_sqlite:
            if not self.file.exists():
                self.upgrade()
            elif self._lock_file.exists() and read_only_reason(self.file) is None:
                # Another process may be creating the tables: it would fail if this one connected.
                with self._upgrade_lock():
                    pass
        self.check()

    def _read_state(self) -> TablesState:
        if self.is_sqlite and not self.file.exists():
            return TablesState()
        with self.reading() as connection:
            return read_state(connection, self._schema(connection))

    def _schema(self, connection: Connection) -> str | None:
        """Return PostgreSQL's schema that contains the tables; None: SQLite.

        Raises LedgerError.
        """
        if self.is_sqlite:
            return None
        from peerloan.database.postgres_sessions import ledger_schema

        return ledger_schema(connection)

    def _make_partitions(self) -> None:
        """Create PostgreSQL's partitions of this month and the next MONTHS_AHEAD months."""
        first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        with self.writing() as connection:
            newest = connection.exec_driver_sql(
                "SELECT id FROM decisions_other ORDER BY id DESC LIMIT 1"
            ).scalar()
            for ahead in range(MONTHS_AHEAD + 1):
                low, high = _month(first, ahead), _month(first, ahead + 1)
                # Decisions of a month without a partition are in the default partition and stay
                # there.
                if newest is not None and str(newest) >= _first_id(low):
                    continue
                connection.exec_driver_sql(
                    f"CREATE TABLE IF NOT EXISTS decisions_{low:%Y_%m} PARTITION OF decisions "
                    f"FOR VALUES FROM ('{_first_id(low)}') TO ('{_first_id(high)}')"
                )

    @contextlib.contextmanager
    def _upgrade_lock(self) -> Iterator[None]:
        """Hold the lock that lets one process at a time change tables."""
        if self.is_sqlite:
            try:
                self.file.parent.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
                private_files.make_file(self._lock_file)
                lock = os.open(self._lock_file, os.O_RDWR)
            except OSError as error:
                raise LedgerUnavailable(f"{self.file.parent}: {error.strerror}") from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
            return
        with self.reading() as connection:
            # Wait until another upgrade ends. The lock is released at the end of this transaction.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(7382650321)"))
            yield


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Set up a new connection to SQLite."""
    # The driver's implicit transactions begin too late and commit too early. So begin explicitly.
    connection.isolation_level = None
    with contextlib.closing(connection.cursor()) as cursor:
        # Applies to a new database. A decision takes 1.5 kB; a default page would hold only two.
        cursor.execute("PRAGMA page_size = 16384")
        cursor.execute("PRAGMA journal_mode = WAL")
        # A commit must be on disk before it is reported.
        cursor.execute("PRAGMA synchronous = FULL")


def _read_password(path: Path) -> str:
    try:
        return read_regular_text(path, MAX_SETTINGS_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: the password can't be read: {first_line(error)}") from None


def _month(first: datetime, ahead: int) -> datetime:
    """Return the first day of a month that is `ahead` months later."""
    months = first.year * 12 + first.month - 1 + ahead
    return first.replace(year=months // 12, month=months % 12 + 1)


def _first_id(moment: datetime) -> str:
    """Return the lowest id of decisions made from a moment on."""
    return str(uuid7.first_at(int(moment.timestamp() * 1000)))
