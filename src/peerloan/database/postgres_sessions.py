"""PostgreSQL sessions: set up, also behind a connection pooler, and drop when lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

from peerloan.database.errors import LedgerError
from peerloan.database.postgres_timeout import TimeLimitedConnection
from peerloan.database.url_options import SETTINGS, connection_options, parse_settings

# Longest time that a caller waits for a free connection of the pool.
_POOL_SECONDS = 2
# PgBouncer's error for startup options.
_REFUSED = "unsupported startup parameter"
# A backend number that differs from the announced one shows that there is a pooler between. It is
# one statement, so that nothing is set in a session that others share.
_SET_IF_OWN = (
    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS own (name, value)"
    " WHERE pg_backend_pid() = %s"
)
_PATH = "SELECT reset_val FROM pg_settings WHERE name = 'search_path'"
# SQLSTATEs of a lost connection: the server is read-only (another one may accept writes, or this
# one later in a new session), has no free connection, or conflicts with a standby's replay; the
# connection was ended or broken.
_LOST = re.compile(r"25006|40001|53300|08...|57P..")
_WHERE = "SELECT current_setting('search_path'), current_schema(), current_user"
_SCHEMA_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
_LEDGER = (
    "SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE relname IN ('chains', 'decisions', 'purges') AND pg_table_is_visible(pg_class.oid) "
    "GROUP BY nspname HAVING count(*) = 3"
)


def postgres_engine(url: URL, limit_seconds: float | None) -> Engine:
    """Create an engine for PostgreSQL; `limit_seconds` limits the wait for each response."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_timeout=_POOL_SECONDS,
        connect_args=connection_options(url),
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]
    ) -> TimeLimitedConnection:
        return _connect(arguments, named, limit_seconds)

    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _forget_lost)
    return engine


def _connect(
    arguments: list[Any], named: dict[str, Any], limit: float | None
) -> TimeLimitedConnection:
    withheld = None
    try:
        connection = TimeLimitedConnection.connect(*arguments, **named)
    except psycopg.OperationalError as error:
        if error.pgconn is None or _REFUSED not in str(error):
            raise
        withheld = error.pgconn.options.decode()
        connection = TimeLimitedConnection.connect(*arguments, **named | {"options": ""})
    try:
        connection.limit = limit
        _set_up(connection, withheld)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: TimeLimitedConnection, withheld: str | None) -> None:
    """Apply the settings to the session, or to each transaction if a pooler shares the session."""
    asked = parse_settings(connection.info.options if withheld is None else withheld)
    own = SETTINGS if withheld is None else asked | SETTINGS
    connection.autocommit = True
    named = list(own), list(own.values()), connection.info.backend_pid
    if not connection.execute(_SET_IF_OWN, named).fetchall():
        # A search_path that another client set in the session must not apply.
        (path,) = connection.execute(_PATH).fetchone() or ("",)
        settings = {"search_path": path} | asked | SETTINGS
        connection.beginning = _local(settings).as_string(connection)
        connection.prepare_threshold = None
    connection.autocommit = False


def _local(settings: Mapping[str, str]) -> sql.Composed:
    set_all = [
        sql.SQL("set_config({}, {}, true)").format(name, value) for name, value in settings.items()
    ]
    return sql.SQL("SELECT ") + sql.SQL(", ").join(set_all)


def _begin(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    if driver.beginning is not None:
        connection.exec_driver_sql(driver.beginning.replace("%", "%%"))


def _forget_lost(context: ExceptionContext) -> None:
    """Invalidate all pooled connections after an error that shows that the server is lost."""
    state = getattr(context.original_exception, "sqlstate", None)
    if state is not None and _LOST.fullmatch(state):
        context.is_disconnect = True


def ledger_schema(connection: Connection) -> str:
    """Return the schema for the ledger's tables: the first one that `search_path` names.

    Raises LedgerError if that schema does not exist, or if the ledger is in another one.
    """
    path, schema, user = connection.exec_driver_sql(_WHERE).one()
    names = [quoted.replace('""', '"') or plain.lower() for quoted, plain in _names(path)]
    # The schema of the user's name ("$user") is optional.
    asked = [
        user if each == "$user" else each for each in names if each != "$user" or schema == user
    ]
    if schema is None or asked[:1] != [schema]:
        missing = asked[0] if asked else "none"
        raise LedgerError(
            f"search_path is {path}: expected a schema that is there and that {user} may use, "
            f"given {missing}; make it (CREATE SCHEMA), or name another: "
            "?options=-csearch_path%3DNAME"
        )
    found = connection.exec_driver_sql(_LEDGER).scalar()
    if found is not None and found != schema:
        raise LedgerError(
            f"search_path is {path}: the ledger's tables are in {found}, and new ones would be "
            f"made in {schema}; name the one that is meant: ?options=-csearch_path%3DNAME"
        )
    return str(schema)


def _names(path: str) -> list[tuple[str, str]]:
    return _SCHEMA_NAME.findall(path)
