"""Settings: from the environment, else from a TOML file, else their defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "PEERLOAN_"
CONFIG = "PEERLOAN_CONFIG"
DEFAULT_CONFIG = Path("peerloan.toml")


class SettingsError(ValueError):
    """A settings file that can't be used, and why."""


@dataclass(frozen=True)
class Settings:
    """What an installation sets: the folder of the store, and that of the API tokens."""

    store: Path = Path("peerloan-store")
    tokens: Path = Path("peerloan-tokens")


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings by PEERLOAN_NAME, else by `name` in the file that PEERLOAN_CONFIG names.

    Without PEERLOAN_CONFIG, `peerloan.toml` in the working folder is read if it is there.
    Raises SettingsError.
    """
    path = Path(environment.get(CONFIG) or DEFAULT_CONFIG)
    given: dict[str, object] = {}
    if environment.get(CONFIG) or path.is_file():
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
    return Settings(**{name: Path(str(value)) for name, value in given.items()})
