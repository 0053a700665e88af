"""Makes the Flask application of this service: the lean one, or plain Flask."""

from __future__ import annotations

from flask import Flask

from peerloan.web.http.tested_libraries import load_private


def make_application(import_name: str, **folders: str) -> Flask:
    """Make an application without views."""
    make = find_lean_flask() or Flask
    app = make(import_name, **folders)  # type: ignore[arg-type]
    # Flask would redirect a path with two slashes to plain HTTP if TLS ended at a proxy, and a
    # client would send the loan there.
    app.url_map.merge_slashes = False
    return app


def find_lean_flask() -> type[Flask] | None:
    """Return the lean application's class; None if the installed Flask is not a tested release."""
    return load_private("flask", _import_lean_flask)


def _import_lean_flask() -> type[Flask]:
    from peerloan.web.http.lean_flask import Application

    return Application
