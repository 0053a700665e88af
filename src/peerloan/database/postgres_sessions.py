"""PostgreSQL sessions: set up, also behind a connection pooler, and discarded when lost."""

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
# PgBouncer's error if the connection has startup options.
_OPTIONS_REFUSED = "unsupported startup parameter"
# If the backend's number differs from the announced one, there is a pooler in between, and other
# clients share the session. One statement checks this and sets nothing in a shared session.
_SET_UNLESS_SHARED = (
    "SELECT set_config(name, value, false) "
    "FROM unnest(%s::text[], %s::text[]) AS settings (name, value) WHERE pg_backend_pid() = %s"
)
_DEFAULT_PATH = "SELECT reset_val FROM pg_settings WHERE name = 'search_path'"
# SQLSTATEs of a lost connection. 25006: the server is read-only; another server, or a new session
# later, may accept writes. 40001: conflict with a standby's replay. 53300: too many connections.
# 08 and 57P: the connection is broken or was ended.
_LOST = re.compile(r"25006|40001|53300|08...|57P..")
_CURRENT_SCHEMA = "SELECT current_setting('search_path'), current_schema(), current_user"
_SCHEMA_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
# The schema in `search_path` that contains a ledger.
_LEDGER_SCHEMA = (
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
        _dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]
    ) -> TimeLimitedConnection:
        return _connect(arguments, options, limit_seconds)

    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _discard_lost)
    return engine


def _connect(
    arguments: list[Any], options: dict[str, Any], limit_seconds: float | None
) -> TimeLimitedConnection:
    """Connect; if a pooler refuses startup options, connect without them and set them later."""
    refused = None
    try:
        connection = TimeLimitedConnection.connect(*arguments, **options)
    except psycopg.OperationalError as error:
        if error.pgconn is None or _OPTIONS_REFUSED not in str(error):
            raise
        refused = error.pgconn.options.decode()
        connection = TimeLimitedConnection.connect(*arguments, **options | {"options": ""})
    try:
        connection.limit_seconds = limit_seconds
        _set_up(connection, refused)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: TimeLimitedConnection, refused: str | None) -> None:
    """Apply the settings to the session, or to each transaction if a pooler shares the session.

    `refused` are the startup options that a pooler refused.
    """
    requested = parse_settings(connection.info.options if refused is None else refused)
    settings = SETTINGS if refused is None else requested | SETTINGS
    connection.autocommit = True
    parameters = list(settings), list(settings.values()), connection.info.backend_pid
    if not connection.execute(_SET_UNLESS_SHARED, parameters).fetchall():
        # A search_path that another client set in the session must not apply.
        (path,) = connection.execute(_DEFAULT_PATH).fetchone() or ("",)
        per_transaction = {"search_path": path} | requested | SETTINGS
        connection.begin_statement = _set_locally(per_transaction).as_string(connection)
        connection.prepare_threshold = None
    connection.autocommit = False


def _set_locally(settings: Mapping[str, str]) -> sql.Composed:
    """Return a statement that sets settings for the rest of its transaction."""
    set_all = [
        sql.SQL("set_config({}, {}, true)").format(name, value) for name, value in settings.items()
    ]
    return sql.SQL("SELECT ") + sql.SQL(", ").join(set_all)


def _begin(connection: Connection) -> None:
    """Apply the settings at the beginning of a transaction in a shared session."""
    driver: Any = connection.connection.driver_connection
    if driver.begin_statement is not None:
        connection.exec_driver_sql(driver.begin_statement.replace("%", "%%"))


def _discard_lost(context: ExceptionContext) -> None:
    """Invalidate all pooled connections after an error that shows that the server is lost."""
    state = getattr(context.original_exception, "sqlstate", None)
    if state is not None and _LOST.fullmatch(state):
        context.is_disconnect = True


def ledger_schema(connection: Connection) -> str:
    """Return the schema for the ledger's tables: the first schema in `search_path`.

    Raises LedgerError if that schema does not exist, or if the ledger is in another one.
    """
    path, schema, user = connection.exec_driver_sql(_CURRENT_SCHEMA).one()
    names = [quoted.replace('""', '"') or plain.lower() for quoted, plain in _names(path)]
    # "$user" stands for a schema with the user's name, which need not exist.
    expected = [
        user if name == "$user" else name for name in names if name != "$user" or schema == user
    ]
    if schema is None or expected[:1] != [schema]:
        missing = expected[0] if expected else "none"
        raise LedgerError(
            f"search_path is {path}: expected a schema that exists and that {user} may use, "
            f"given {missing}; create it (CREATE SCHEMA), or set another one in the URL: "
            "?options=-csearch_path%3DNAME"
        )
    ledger = connection.exec_driver_sql(_LEDGER_SCHEMA).scalar()
    if ledger is not None and ledger != schema:
        raise LedgerError(
            f"search_path is {path}: the ledger's tables are in {ledger}, but new ones would be "
            f"created in {schema}; set the right one in the URL: ?options=-csearch_path%3DNAME"
        )
    return str(schema)


def _names(path: str) -> list[tuple[str, str]]:
    """Split a search path into names; of each pair one is empty: (quoted, not quoted)."""
    return _SCHEMA_NAME.findall(path)
