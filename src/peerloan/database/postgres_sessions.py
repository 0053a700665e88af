"""PostgreSQL's sessions: how one is begun, also through a pooler, and when it is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

from peerloan.database.errors import LedgerError
from peerloan.database.postgres_timeout import Limited
from peerloan.database.url_options import SETTINGS, connection_options, parse_settings

# How long who asks waits for one of a few connections.
_POOL_SECONDS = 2
# What PgBouncer answers to options.
_REFUSED = "unsupported startup parameter"
# The session is another's than the number that it was announced by: there is a pooler between. One
# question, so that nothing is set in a session that others use.
_SET_IF_OWN = (
    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS own (name, value)"
    " WHERE pg_backend_pid() = %s"
)
_PATH = "SELECT reset_val FROM pg_settings WHERE name = 'search_path'"
# A server that can't be written to now (another one can, or this one later, to new sessions), has
# no place or conflicts with what a standby replays; and whatever ends or breaks a connection.
_LOST = re.compile(r"25006|40001|53300|08...|57P..")
_WHERE = "SELECT current_setting('search_path'), current_schema(), current_user"
_SCHEMA_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
_LEDGER = (
    "SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE relname IN ('chains', 'decisions', 'purges') AND pg_table_is_visible(pg_class.oid) "
    "GROUP BY nspname HAVING count(*) = 3"
)


def postgres_engine(url: URL, limit_seconds: float | None) -> Engine:
    """Connections to PostgreSQL; `limit_seconds` bounds the wait for each of their answers."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_timeout=_POOL_SECONDS,
        connect_args=connection_options(url),
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        _dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]
    ) -> Limited:
        return _connect(arguments, named, limit_seconds)

    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _forget_lost)
    return engine


def _connect(arguments: list[Any], named: dict[str, Any], limit: float | None) -> Limited:
    withheld = None
    try:
        connection = Limited.connect(*arguments, **named)
    except psycopg.OperationalError as error:
        if error.pgconn is None or _REFUSED not in str(error):
            raise
        withheld = error.pgconn.options.decode()
        connection = Limited.connect(*arguments, **named | {"options": ""})
    try:
        connection.limit = limit
        _set_up(connection, withheld)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: Limited, withheld: str | None) -> None:
    """Have every transaction's settings hold, by the session or by its beginning."""
    asked = parse_settings(connection.info.options if withheld is None else withheld)
    own = SETTINGS if withheld is None else asked | SETTINGS
    connection.autocommit = True
    named = list(own), list(own.values()), connection.info.backend_pid
    if not connection.execute(_SET_IF_OWN, named).fetchall():
        # What other clients left set there must not say where tables are.
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
    """Let go of every connection that was made before a server could not be used any more."""
    state = getattr(context.original_exception, "sqlstate", None)
    if state is not None and _LOST.fullmatch(state):
        context.is_disconnect = True


def ledger_schema(connection: Connection) -> str:
    """The schema where the ledger's tables are, or are to be made: the first that `search_path`
    names. Raises LedgerError if that is not there, or if the ledger is in another one.
    """
    path, schema, user = connection.exec_driver_sql(_WHERE).one()
    names = [quoted.replace('""', '"') or plain.lower() for quoted, plain in _names(path)]
    # A schema of the user's own need not be there.
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
