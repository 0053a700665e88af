"""Libraries whose private parts the web process uses, and the versions that were tested.

With another version, or if a private name is missing, the process uses the library's public
interface only: slower, but it starts. The log has one line about it, and `/healthz` shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

log = logging.getLogger(__name__)
# The one list of libraries. Add a version once the whole test suite passes with it.
TESTED_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "flask": ("3.1.3",),
    "granian": ("2.8.7",),
    "gunicorn": ("27.0.1",),
}
_Part = TypeVar("_Part")
# The reason why a library's private parts are not used, by library. Worker processes inherit both
# variables at the fork.
_reasons: dict[str, str] = {}
_logged: set[str] = set()


def load_private(library: str, load: Callable[[], _Part]) -> _Part | None:
    """Return `load`'s result from a library's private parts; None if they can't be used.

    `load` raises ImportError or AttributeError if a private name is missing.
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
    """Return the installed version of a library; "unknown" without metadata."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"


def untested_libraries() -> list[str]:
    """List the libraries that this process uses through their public interface only."""
    return sorted(_reasons)


def log_untested() -> None:
    """Warn once of each library that is used through its public interface only."""
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
