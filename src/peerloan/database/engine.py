"""The ledger's database: SQLite in a file, or PostgreSQL, by its URL."""

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

# How long who serves waits for one of PostgreSQL's answers.
ANSWER_SECONDS = 4.0
# PostgreSQL's partitions, a month each, are made so far ahead by each upgrade.
MONTHS_AHEAD = 12


class Database:
    """A database and its tables. Opening it looks at nothing; `check` and `upgrade` do."""

    def __init__(
        self, url: str, password_file: Path | None = None, limit_seconds: float | None = None
    ) -> None:
        """`limit_seconds`: how long an answer of PostgreSQL's may take; None: however long."""
        self._limit = limit_seconds
        self.url = read_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if password_file is not None:
            self.url = self.url.set(password=_secret(password_file))

    def __str__(self) -> str:
        """Where it is, without the password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path:
        """SQLite's file."""
        return Path(str(self.url.database))

    @cached_property
    def engine(self) -> Engine:
        """Its connections."""
        if self.is_sqlite:
            engine = create_engine(
                self.url, connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False}
            )
            event.listen(engine, "do_connect", self._close_files)
            event.listen(engine, "connect", _prepare_sqlite)
            return engine
        # With its driver, where it is needed.
        from peerloan.database.postgres_sessions import postgres_engine

        return postgres_engine(self.url, self._limit)

    def _close_files(self, *_: object) -> None:
        """See that SQLite's files are their owner's alone, before it opens or makes them.

        It gives those that it keeps beside the ledger the ledger's mode. None of them is opened
        here: to close one would drop the locks that SQLite has on it in this process.
        """
        with contextlib.suppress(OSError):  # of those that matter SQLite says why
            if not self.file.exists():
                atomic_files.publish_file(self.file, b"", private_files.FILE_MODE)
            file = self.file.resolve()  # beside which SQLite keeps the others
            folder = file.parent
            beside = list(folder.iterdir())
            own = [each for each in beside if each.name.startswith(file.name)]
            for each in own:
                private_files.close_to_others(each)
            if len(own) == len(beside):  # the folder is the ledger's, too
                private_files.close_to_others(folder)

    def renew(self) -> None:
        """Have who asks next do so by a new connection: those that are there may lead to a server
        that can't be written to any more.
        """
        self.engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to ask by; raises LedgerUnavailable."""
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
        """A connection whose changes are kept together, or none of them; raises
        LedgerUnavailable.
        """
        self._expect_writable_file()
        with translate_errors(), self.engine.connect() as connection:
            # SQLite's driver would begin with the first change, and then find it too late.
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def expect_writable(self) -> None:
        """Raise LedgerReadOnly if it can't be written to now, as far as that shows, or
        LedgerUnavailable.
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
        if self.is_sqlite and (why := read_only_reason(self.file)):
            raise LedgerReadOnly(f"{self.file}: can't be written to: {why}")

    def check(self) -> None:
        """Raise LedgerError unless this release may write to the tables as they are now."""
        check_state(self, self._state())

    def upgrade(self) -> list[int]:
        """Bring the tables to this release's; returns the migrations that were applied.

        One process at a time, however many try. Tables of a newer release stay as they are.
        Raises LedgerError.
        """
        # A library that only this needs: what serves need not carry it in memory.
        migrate = import_module("peerloan.database.migrations").migrate
        self._expect_writable_file()
        with self._alone():
            before = self._state().migration
            if before < tables.NUMBER:
                with translate_errors():
                    migrate(self.engine)
            if not self.is_sqlite:
                self._make_partitions()
            return list(range(before + 1, tables.NUMBER + 1))

    def ready(self) -> None:
        """Make SQLite's tables at the first start; else only `check`. Raises LedgerError."""
        if self.is_sqlite and not self.file.exists():
            self.upgrade()
        self.check()

    def _state(self) -> TablesState:
        if self.is_sqlite and not self.file.exists():
            return TablesState()
        with self.reading() as connection:
            return read_state(connection, self._schema(connection))

    def _schema(self, connection: Connection) -> str | None:
        """PostgreSQL's schema in which the tables are; raises LedgerError."""
        if self.is_sqlite:
            return None
        from peerloan.database.postgres_sessions import ledger_schema

        return ledger_schema(connection)

    def _make_partitions(self) -> None:
        first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        with self.writing() as connection:
            newest = connection.exec_driver_sql(
                "SELECT id FROM decisions_other ORDER BY id DESC LIMIT 1"
            ).scalar()
            for ahead in range(MONTHS_AHEAD + 1):
                low, high = _month(first, ahead), _month(first, ahead + 1)
                # A month that nobody made in time has its decisions there, and keeps to it.
                if newest is not None and str(newest) >= _bound(low):
                    continue
                connection.exec_driver_sql(
                    f"CREATE TABLE IF NOT EXISTS decisions_{low:%Y_%m} PARTITION OF decisions "
                    f"FOR VALUES FROM ('{_bound(low)}') TO ('{_bound(high)}')"
                )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold what lets one process at a time change tables."""
        if self.is_sqlite:
            try:
                self.file.parent.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
                lock_file = self.file.with_name(f"{self.file.name}.lock")
                private_files.make_file(lock_file)
                lock = os.open(lock_file, os.O_RDWR)
            except OSError as error:
                raise LedgerUnavailable(f"{self.file.parent}: {error.strerror}") from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
            return
        with self.reading() as connection:
            # However long another upgrade takes; the lock ends with this transaction.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(7382650321)"))
            yield


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transactions begin too late and commit too early: ours are explicit.
    connection.isolation_level = None
    with contextlib.closing(connection.cursor()) as cursor:
        # Of a new database: a decision takes 1.5 kB, of which a usual page holds two, badly.
        cursor.execute("PRAGMA page_size = 16384")
        cursor.execute("PRAGMA journal_mode = WAL")
        # A commit is on the disk before it is told of.
        cursor.execute("PRAGMA synchronous = FULL")


def _secret(path: Path) -> str:
    try:
        return read_regular_text(path, MAX_SETTINGS_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: the password can't be read: {first_line(error)}") from None


def _month(first: datetime, ahead: int) -> datetime:
    months = first.year * 12 + first.month - 1 + ahead
    return first.replace(year=months // 12, month=months % 12 + 1)


def _bound(moment: datetime) -> str:
    return str(uuid7.first_at(int(moment.timestamp() * 1000)))
