"""The options in a ledger's URL, and the options that the ledger adds."""

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
# Session settings that the ledger relies on: no wait for a lock is longer than a request, and
# numbers are read back exactly.
SETTINGS = {"lock_timeout": f"{LOCK_SECONDS // 2}s", "extra_float_digits": "1"}
# Environment variables that libpq reads for options that are not in the URL.
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
        raise LedgerError(f"no database's URL: {first_line(error)}") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise LedgerError(f"expected sqlite or postgresql, given {backend}")
    if backend == "postgresql":
        _check_options(url)
        if "password" in url.query:  # a password in the query would not be hidden in messages
            url = url.set(password=str(url.query["password"])).difference_update_query(["password"])
    elif url.database in (None, "", ":memory:"):
        raise LedgerError("expected a file for SQLite: sqlite:///FOLDER/ledger.db")
    elif url.query:
        names = ", ".join(url.query)
        raise LedgerError(f"expected no options in SQLite's URL, given {names}; leave them out")
    return url


def _split_hosts(text: str) -> URL:
    scheme, separator, rest = text.partition("://")
    scheme = re.sub(r"^postgres(?=\+|$)", "postgresql", scheme)
    found = _HOSTS.fullmatch(rest)
    if found is None or not scheme.startswith("postgresql"):
        return make_url(scheme + separator + rest)
    url = make_url(f"{scheme}://{found['user']}{found['rest']}")
    ends = [_PORT.fullmatch(each) for each in found["hosts"].split(",")]
    hosts = ",".join(end["host"].strip("[]") for end in ends if end)
    ports = ",".join(end["port"] or "" for end in ends if end)
    return url.update_query_dict({"host": hosts} | ({"port": ports} if ports.strip(",") else {}))


def _check_options(url: URL) -> None:
    """Raise LedgerError for an unknown option of PostgreSQL's connections, or an invalid value."""
    from psycopg.pq import Conninfo  # import the driver only if it is used

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for name, value in url.query.items():
        if name not in known:
            raise LedgerError(
                f"{name}: PostgreSQL's connections have no such option; a setting of the server "
                f"stands in options: ?options=-c{name}%3D{value if isinstance(value, str) else ''}"
            )
        if not isinstance(value, str) and name not in ("host", "port"):
            raise LedgerError(f"{name}: expected once in the URL, given {len(value)} times")
    parse_settings(str(_asked(url, "options") or ""))


def connection_options(url: URL) -> dict[str, Any]:
    """Return the ledger's connection options that neither the URL nor the environment sets."""
    own: dict[str, Any] = {
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
        own["target_session_attrs"] = "read-write"
    return {name: value for name, value in own.items() if _asked(url, name) is None}


def _asked(url: URL, name: str) -> str | tuple[str, ...] | None:
    return url.query.get(name, os.environ.get(_VARIABLES.get(name, "")))


def parse_settings(options: str) -> dict[str, str]:
    """Parse the settings in PostgreSQL's `options`.

    Raises LedgerError for a syntax error, and for a setting that the ledger sets itself.
    """
    settings: dict[str, str] = {}
    words = iter([re.sub(r"\\(.)", r"\1", each) for each in _WORD.findall(options)])
    for word in words:
        text = next(words, "") if word == "-c" else word[2:]
        name, equals, value = text.partition("=")
        if not word.startswith(("-c", "--")) or not name or not equals:
            raise LedgerError(
                f"options (of the URL, or PGOPTIONS): expected -cNAME=VALUE, given {word!r}"
            )
        settings[name.replace("-", "_").lower()] = value
    _refuse_own(settings)
    return settings


def _refuse_own(settings: Mapping[str, str]) -> None:
    for name in settings.keys() & SETTINGS.keys():
        raise LedgerError(
            f"options (of the URL, or PGOPTIONS): {name} is set by the ledger, to "
            f"{SETTINGS[name]}, on which its answers rely; leave it out"
        )
