"""Read the settings: from the environment, else from a TOML file, else the defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from peerloan.errors import PeerLoanError
from peerloan.regular_files import read_regular_text

PREFIX = "PEERLOAN_"
CONFIG = "PEERLOAN_CONFIG"
DEFAULT_CONFIG = Path("peerloan.toml")
# A path without the segments "." and "..", which servers and browsers would resolve.
_PATH_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_MAX_PREFIX = 100
# The first path segments of the service's own addresses. A prefix can't begin with one of these:
# addresses would be ambiguous.
SERVICE_PATHS = (
    *("bootstrap", "decisions", "docs", "find", "healthz", "metrics", "models"),
    *("openapi.json", "readyz", "sign-in", "sign-out", "static", "v1", "v2"),
)
# The largest file of settings, of monitoring rules, or with a secret.
MAX_SETTINGS_BYTES = 1_000_000


class SettingsError(PeerLoanError, ValueError):
    """Settings that can't be used; the message gives the reason."""


class Setting(NamedTuple):
    """A setting: one row of the table that the reader, `peerloan --help` and the docs use.

    `name` is its key in a settings file. `default` describes the default in words, empty if there
    is none. The value of a secret is never shown. `convert` parses the text of a value.
    """

    name: str
    default: str
    help: str
    is_secret: bool
    convert: Callable[[str], object]

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return PREFIX + self.name.upper()


def _row(
    convert: Callable[[str], object], default: str, text: str, is_secret: bool = False
) -> dict[str, Any]:
    """Metadata of a field of Settings, from which its `Setting` is made."""
    return {"default": default, "help": text, "is_secret": is_secret, "convert": convert}


@dataclass(frozen=True)
class Settings:
    """The settings of an installation. Each field is also a row of SETTINGS."""

    store: Path = field(
        default=Path("peerloan-store"),
        metadata=_row(Path, "./peerloan-store", "Folder of the model store."),
    )
    tokens: Path = field(
        default=Path("peerloan-tokens"),
        metadata=_row(Path, "./peerloan-tokens", "Folder of the API tokens."),
    )
    # A URL may hold a password.
    ledger: str = field(
        default="",
        repr=False,
        metadata=_row(
            str,
            "SQLite, in peerloan-ledger beside the store",
            "Database of the ledger: sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
            is_secret=True,
        ),
    )
    ledger_password_file: Path | None = field(
        default=None, metadata=_row(Path, "", "File with the password of the ledger's database.")
    )
    seal: Path | None = field(
        default=None,
        metadata=_row(
            Path,
            "peerloan-seal beside the store",
            "Folder of the ledger's key and its chains' heads. Keep it apart from the database.",
        ),
    )
    rules: Path | None = field(
        default=None,
        metadata=_row(Path, "the built-in rules", "File of the monitoring rules (TOML)."),
    )
    prefix: str = field(
        default="",
        metadata=_row(str, "", "Path under which a proxy shows the service, such as /risk."),
    )

    def __post_init__(self) -> None:
        """Raise SettingsError if the prefix can't be used as one."""
        if not _PATH_PREFIX.fullmatch(self.prefix) or len(self.prefix) > _MAX_PREFIX:
            expected = "a path such as /risk, without a slash at its end"
        elif self.prefix.startswith("/") and self.prefix.split("/")[1] in SERVICE_PATHS:
            expected = f"a path whose first part is none of {', '.join(SERVICE_PATHS)}"
        else:
            return
        raise SettingsError(
            f"{PREFIX}PREFIX (prefix): expected {expected}, given {self.prefix[:60]!r}"
        )

    @property
    def ledger_url(self) -> str:
        """The URL of the ledger's database, as SQLAlchemy expects it."""
        return self.ledger or f"sqlite:///{self.store.parent / 'peerloan-ledger' / 'ledger.db'}"

    @property
    def seal_folder(self) -> Path:
        """The folder of the ledger's key and its chains' heads."""
        return self.seal or self.store.parent / "peerloan-seal"

    @property
    def tokens_marker(self) -> Path:
        """The file that records that API tokens were created once.

        It is not in the folder of the tokens, so that the service notices if that folder is lost.
        """
        return self.seal_folder / "tokens-made"

    @property
    def ended_sessions(self) -> Path:
        """Where signed-out sessions are recorded, for all workers and containers."""
        return self.seal_folder / "ended-sessions"


SETTINGS = tuple(Setting(name=row.name, **row.metadata) for row in fields(Settings))
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def settings_table() -> list[tuple[str, str, str, str]]:
    """The settings as rows for people: variable, name in a settings file, default and help."""
    config = (CONFIG, "", "./peerloan.toml, if it exists", "The settings file.")
    return [*((s.variable, s.name, s.default, s.help) for s in SETTINGS), config]


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read each setting from its environment variable, else from the settings file.

    The settings file is the one that PEERLOAN_CONFIG names, else `peerloan.toml` in the working
    folder if it exists. Raises SettingsError.
    """
    values = _read_file(environment.get(CONFIG))
    values |= {s.name: value for s in SETTINGS if (value := environment.get(s.variable))}
    return Settings(**{name: _BY_NAME[name].convert(value) for name, value in values.items()})  # type: ignore[arg-type]


def _read_file(config: str | None) -> dict[str, str]:
    """Read the values of the settings file by name; `config` is its path, empty for the default.

    Empty if there is no file at the default path.
    """
    path = Path(config or DEFAULT_CONFIG)
    if not config and not path.is_file():
        return {}
    try:
        values = tomllib.loads(read_regular_text(path, MAX_SETTINGS_BYTES))
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: can't be read: {error}") from None
    for name, value in values.items():
        if name not in _BY_NAME:
            names = ", ".join(_BY_NAME)
            raise SettingsError(f"{path}: expected one of the settings {names}, got {name!r}")
        if not isinstance(value, str) or not value:
            shown = "another value" if _BY_NAME[name].is_secret else repr(value)
            raise SettingsError(f"{path}: {name}: expected text, got {shown}")
    return values
