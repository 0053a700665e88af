"""Applications in the tests' process, which are closed after the test that created them."""

from __future__ import annotations

from typing import BinaryIO

from flask import Flask

import peerloan.web
from peerloan.settings import Settings
from peerloan.web.services import services_of

_open: list[Flask] = []


def create_app(settings: Settings, log: BinaryIO | None = None, on_loopback: bool = False) -> Flask:
    """Create an application as a worker does; it is closed after the test."""
    app = peerloan.web.create_app(settings, log, on_loopback)
    _open.append(app)
    return app


def count_open() -> int:
    """The number of open applications."""
    return len(_open)


def close_apps(first: int) -> None:
    """Stop the threads of all applications but the first `first` ones."""
    apps = _open[first:]
    del _open[first:]
    for app in apps:
        services_of(app).serving_models.close()
    for app in apps:
        services_of(app).writer.close()
