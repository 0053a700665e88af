"""The libraries whose private parts the web process uses, and the versions it was tested with.

With any other version, or where a private name is missing, the process uses the library's public
interface alone: slower, but it starts. The log says so once, and `/healthz` shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

log = logging.getLogger(__name__)
# One place for each library. Add a version once the whole suite has passed with it.
TESTED_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "flask": ("3.1.3",),
    "granian": ("2.8.7",),
    "gunicorn": ("27.0.1",),
}
_Part = TypeVar("_Part")
# By library: why its private parts are not used. Worker processes inherit both with the fork.
_reasons: dict[str, str] = {}
_logged: set[str] = set()


def load_private(library: str, load: Callable[[], _Part]) -> _Part | None:
    """What `load` makes of a library's private parts; None where it must not, or can't.

    `load` raises ImportError or AttributeError where a private name is missing.
    """
    installed = installed_version(library)
    if installed not in TESTED_VERSIONS[library]:
        _reasons[library] = "this release was not tested with it"
        return None
    try:
        part = load()
    except (ImportError, AttributeError) as error:
        _reasons[library] = f"it is not as this release was tested with it ({error})"
        return None
    _reasons.pop(library, None)
    return part


def installed_version(library: str) -> str:
    """The version of a library that is installed; "unknown" where it has no metadata."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"


def untested_libraries() -> list[str]:
    """The libraries of which this process uses the public interface alone, by name."""
    return sorted(_reasons)


def log_untested() -> None:
    """Warn of each library of which the public interface alone is used, once."""
    for library in untested_libraries():
        if library in _logged:
            continue
        _logged.add(library)
        tested = TESTED_VERSIONS[library]
        log.warning(
            "%s %s: %s. The service uses its public interface alone, which is slower; "
            "to be faster, install %s",
            library,
            installed_version(library),
            _reasons[library],
            " or ".join(f"{library}=={each}" for each in tested),
        )
