"""Applications in the tests' own process, which end with the test that made them."""

from __future__ import annotations

from typing import BinaryIO

from flask import Flask

import peerloan.web
from peerloan.settings import Settings
from peerloan.web.services import services_of

_open: list[Flask] = []


def create_app(settings: Settings, log: BinaryIO | None = None, on_loopback: bool = False) -> Flask:
    """An application as a worker has it."""
    app = peerloan.web.create_app(settings, log, on_loopback)
    _open.append(app)
    return app


def count_open() -> int:
    """How many applications there are."""
    return len(_open)


def close_apps(first: int) -> None:
    """End the threads of applications from a number on: they would go on until the last test."""
    apps = _open[first:]
    del _open[first:]
    for app in apps:
        services_of(app).serving_models.close()
    for app in apps:
        services_of(app).writer.close()
