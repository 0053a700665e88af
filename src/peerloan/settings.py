"""Settings: from the environment, else from a TOML file, else their defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peerloan.errors import PeerLoanError
from peerloan.regular_files import read_regular_text

PREFIX = "PEERLOAN_"
CONFIG = "PEERLOAN_CONFIG"
DEFAULT_CONFIG = Path("peerloan.toml")
# A path whose segments mean themselves in every server and browser, neither "." nor "..".
_PATH_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_MAX_PREFIX = 100
# What the service's own addresses begin with: under such a prefix one could mean two things.
OWN_PATHS = (
    *("bootstrap", "docs", "healthz", "metrics", "openapi.json", "readyz"),
    *("sign-in", "sign-out", "static", "v1", "v2"),
)
# Of a file of settings, of rules, or with a secret.
MAX_SETTINGS_BYTES = 1_000_000
_TEXTS = ("ledger", "prefix")


class SettingsError(PeerLoanError, ValueError):
    """A settings file that can't be used, and why."""


@dataclass(frozen=True)
class Settings:
    """What an installation sets: the folders of the store, the API tokens and the seal's key, the
    ledger's database, the file of the rules by which the model is watched, and the path prefix
    under which a proxy shows the service. What is not set of the ledger stands beside the store.
    """

    store: Path = Path("peerloan-store")
    tokens: Path = Path("peerloan-tokens")
    ledger: str = ""
    ledger_password_file: Path | None = None
    seal: Path | None = None
    rules: Path | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        """Raise SettingsError if the prefix is none that can stand before every address."""
        if not _PATH_PREFIX.fullmatch(self.prefix) or len(self.prefix) > _MAX_PREFIX:
            expected = "a path such as /risk, without a slash at its end"
        elif self.prefix.startswith("/") and self.prefix.split("/")[1] in OWN_PATHS:
            expected = "a path that begins as no address of the service does"
        else:
            return
        raise SettingsError(
            f"{PREFIX}PREFIX (prefix): expected {expected}, given {self.prefix[:60]!r}"
        )

    @property
    def ledger_url(self) -> str:
        """The ledger's database, as SQLAlchemy names it."""
        return self.ledger or f"sqlite:///{self.store.parent / 'peerloan-ledger' / 'ledger.db'}"

    @property
    def seal_folder(self) -> Path:
        """Where the seal's key and the chains' heads are kept."""
        return self.seal or self.store.parent / "peerloan-seal"

    @property
    def tokens_marker(self) -> Path:
        """What says that API tokens were made, in the one folder besides theirs that the service
        always has.
        """
        return self.seal_folder / "tokens-made"

    @property
    def ended_sessions(self) -> Path:
        """Where the sessions are noted that persons ended, for every worker and container."""
        return self.seal_folder / "ended-sessions"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings by PEERLOAN_NAME, else by `name` in the file that PEERLOAN_CONFIG names.

    Without PEERLOAN_CONFIG, `peerloan.toml` in the working folder is read if it is there.
    Raises SettingsError.
    """
    path = Path(environment.get(CONFIG) or DEFAULT_CONFIG)
    given: dict[str, object] = {}
    if environment.get(CONFIG) or path.is_file():
        try:
            given = tomllib.loads(read_regular_text(path, MAX_SETTINGS_BYTES))
        except OSError as error:
            raise SettingsError(f"{path}: can't be read: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path}: can't be read: {error}") from None
    for name, value in given.items():
        if name not in Settings.__dataclass_fields__:
            known = ", ".join(Settings.__dataclass_fields__)
            raise SettingsError(f"{path}: no setting {name!r} (known: {known})")
        if not isinstance(value, str) or not value:
            raise SettingsError(f"{path}: {name}: expected text, got {value!r}")
    for name in Settings.__dataclass_fields__:
        if value := environment.get(PREFIX + name.upper()):
            given[name] = value
    return Settings(
        **{
            name: str(value) if name in _TEXTS else Path(str(value))
            for name, value in given.items()
        }  # type: ignore[arg-type]
    )
