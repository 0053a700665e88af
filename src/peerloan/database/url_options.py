"""Parses a database's URL and its options, and adds the ledger's connection options."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from peerloan.database.errors import LedgerError, first_line

# How long a statement may wait for another writer's lock, and a connection for the database.
LOCK_SECONDS = 4
_CONNECT_SECONDS = 3
# Session settings that the ledger needs: waits for locks are shorter than a request's, and numbers
# are read exactly as they were written.
SETTINGS = {"lock_timeout": f"{LOCK_SECONDS // 2}s", "extra_float_digits": "1"}
# Environment variables from which libpq reads options that are not in the URL.
_VARIABLES = {
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "host": "PGHOST",
    "options": "PGOPTIONS",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
# A libpq URL with several hosts, which SQLAlchemy writes as options.
_HOSTS = re.compile(
    r"(?P<user>(?:[^:/@]*(?::[^@]*)?@)?+)(?P<hosts>[^/?@]*,[^/?@]*)(?P<rest>(?:[/?].*)?)"
)
_PORT = re.compile(r"(?P<host>.*?)(?::(?P<port>\d*))?")
_WORD = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)


def read_url(text: str) -> URL:
    """Parse a database URL in the syntax of SQLAlchemy or libpq. Raises LedgerError."""
    try:
        url = _split_hosts(text)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise LedgerError(f"the database's URL can't be parsed: {first_line(error)}") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise LedgerError(f"expected a URL of sqlite or postgresql, given {backend}")
    if backend == "postgresql":
        _check_options(url)
        if "password" in url.query:  # a password in the query would not be hidden in messages
            url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    elif url.database in (None, "", ":memory:"):
        raise LedgerError("expected the path of a file: sqlite:///FOLDER/ledger.db")
    elif url.query:
        names = ", ".join(url.query)
        raise LedgerError(f"expected no options in SQLite's URL, given {names}; remove them")
    return url


def _split_hosts(text: str) -> URL:
    """Parse a URL; several hosts, as libpq allows, become the options `host` and `port`."""
    scheme, separator, rest = text.partition("://")
    scheme = re.sub(r"^postgres(?=\+|$)", "postgresql", scheme)
    match = _HOSTS.fullmatch(rest)
    if match is None or not scheme.startswith("postgresql"):
        return make_url(scheme + separator + rest)
    url = make_url(f"{scheme}://{match['user']}{match['rest']}")
    servers = [_PORT.fullmatch(server) for server in match["hosts"].split(",")]
    hosts = ",".join(server["host"].strip("[]") for server in servers if server)
    ports = ",".join(server["port"] or "" for server in servers if server)
    return url.update_query_dict({"host": hosts} | ({"port": ports} if ports.strip(",") else {}))


def _check_options(url: URL) -> None:
    """Raise LedgerError for an unknown option of PostgreSQL's connections, or an invalid value."""
    from psycopg.pq import Conninfo  # import the driver only if it is used

    valid = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name, value in url.query.items():
        if name not in valid:
            setting = value if isinstance(value, str) else ""
            raise LedgerError(
                f"{name}: PostgreSQL's connections have no such option; write a setting of the "
                f"server as ?options=-c{name}%3D{setting}"
            )
        if not isinstance(value, str) and name not in ("host", "port"):
            raise LedgerError(f"{name}: expected once in the URL, given {len(value)} times")
    parse_settings(str(_option(url, "options") or ""))


def connection_options(url: URL) -> dict[str, Any]:
    """Return the ledger's connection options, except those set by the URL or the environment."""
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT_SECONDS,
        "fallback_application_name": "peerloan",
        # Detect a server that vanished, also in the middle of a write.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": LOCK_SECONDS * 1000,
    }
    hosts = url.query.get("host") or url.host or os.environ.get(_VARIABLES["host"], "")
    if not isinstance(hosts, str) or "," in hosts:
        # Of several servers, connect to one that accepts writes.
        options["target_session_attrs"] = "read-write"
    return {name: value for name, value in options.items() if _option(url, name) is None}


def _option(url: URL, name: str) -> str | tuple[str, ...] | None:
    """Return an option from the URL, or else from the environment."""
    return url.query.get(name, os.environ.get(_VARIABLES.get(name, "")))


def parse_settings(options: str) -> dict[str, str]:
    """Parse the settings in PostgreSQL's `options`.

    Raises LedgerError for a syntax error, and for a setting that the ledger sets itself.
    """
    settings: dict[str, str] = {}
    words = iter([re.sub(r"\\(.)", r"\1", word) for word in _WORD.findall(options)])
    for word in words:
        text = next(words, "") if word == "-c" else word[2:]
        name, equals, value = text.partition("=")
        if not word.startswith(("-c", "--")) or not name or not equals:
            raise LedgerError(
                f"options (of the URL, or PGOPTIONS): expected -cNAME=VALUE, given {word!r}"
            )
        settings[name.replace("-", "_").lower()] = value
    _check_settings(settings)
    return settings


def _check_settings(settings: Mapping[str, str]) -> None:
    """Raise LedgerError for a setting that the ledger sets itself."""
    for name in settings.keys() & SETTINGS.keys():
        raise LedgerError(
            f"options (of the URL, or PGOPTIONS): the ledger needs {name} to be {SETTINGS[name]} "
            "and sets it itself; remove this setting"
        )
