"""Libraries whose private parts the web process uses, and the versions that were tested.

If another version is installed, or a private name is missing, the process uses the library's public
interface only. It is then slower. The log has a warning about it, and `/healthz` names the library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

log = logging.getLogger(__name__)
# Add a version once the complete test suite passes with it.
TESTED_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "flask": ("3.1.3",),
    "granian": ("2.8.7",),
    "gunicorn": ("27.0.1",),
}
_Part = TypeVar("_Part")
# Why the private parts of a library are not used, by library. Worker processes inherit this and
# `_logged` at the fork.
_reasons: dict[str, str] = {}
_logged: set[str] = set()


def load_private(library: str, load: Callable[[], _Part]) -> _Part | None:
    """Call `load`, which uses private parts of a library, and return its result.

    Returns None if the installed version was not tested, or if `load` raises ImportError or
    AttributeError because a private name is missing.
    """
    installed = installed_version(library)
    if installed not in TESTED_VERSIONS[library]:
        _reasons[library] = "PeerLoan Risk was not tested with this version"
        return None
    try:
        part = load()
    except (ImportError, AttributeError) as error:
        _reasons[library] = f"it lacks private parts that the tested version has ({error})"
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
    """Log a warning, once for each library that is used through its public interface only."""
    for library in untested_libraries():
        if library in _logged:
            continue
        _logged.add(library)
        tested = TESTED_VERSIONS[library]
        log.warning(
            "%s %s: %s. The service uses only its public interface, which is slower; "
            "for full speed, install %s",
            library,
            installed_version(library),
            _reasons[library],
            " or ".join(f"{library}=={number}" for number in tested),
        )
