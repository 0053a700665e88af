"""The Flask application that this service is built on: the lean one, or Flask as it is."""

from __future__ import annotations

from flask import Flask

from peerloan.web.http.tested_libraries import load_private


def make_application(import_name: str, **folders: str) -> Flask:
    """An application without views."""
    make = find_lean_flask() or Flask
    app = make(import_name, **folders)  # type: ignore[arg-type]
    # A path with two slashes would be redirected, without the TLS that ended in front of us, and a
    # client would send the loan there.
    app.url_map.merge_slashes = False
    return app


def find_lean_flask() -> type[Flask] | None:
    """The lean application's class, or None where the installed Flask is not a tested one."""
    return load_private("flask", _import_lean_flask)


def _import_lean_flask() -> type[Flask]:
    from peerloan.web.http.lean_flask import Application

    return Application
