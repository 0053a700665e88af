"""Programs that some tests need, and the Debian packages that contain them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

import pytest

_FOLDERS = (*os.environ.get("PATH", "").split(":"), "/usr/lib/postgresql/15/bin", "/usr/sbin")
PACKAGES = {
    "PostgreSQL": ("postgresql-15",),
    "PgBouncer": ("pgbouncer",),
    "Chromium": ("chromium", "chromium-driver"),
    "Nginx": ("nginx-light",),
    "promtool": ("prometheus",),
}


def program(name: str) -> str | None:
    """The path of a program; None if it is not installed."""
    return shutil.which(name, path=":".join(_FOLDERS))


def require(product: str, *programs: str) -> list[str]:
    """The paths of a product's programs. Skips the test if a program is not installed."""
    paths = [program(name) for name in programs]
    if None in paths:
        pytest.skip(_reason(product))
    return [path for path in paths if path is not None]


def describe_skipped(reasons: Iterable[str]) -> str:
    """One line: how many tests were skipped, and the command that installs what they need."""
    skipped = [reason.removeprefix("Skipped: ") for reason in reasons]
    missing = [product for product in PACKAGES if _reason(product) in skipped]
    line = f"{len(skipped)} test{'s' * (len(skipped) != 1)} skipped"
    others = sorted(set(skipped) - {_reason(product) for product in missing})
    causes = [_reason(product) for product in missing] + others
    line += f": {'; '.join(causes)}"
    if missing:
        packages = " ".join(package for product in missing for package in PACKAGES[product])
        line += f". To add them: apt-get install --no-install-recommends {packages}"
    return line


def _reason(product: str) -> str:
    return f"{product} is not installed"
