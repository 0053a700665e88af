"""Makes the Flask application object: of the faster lean class, or of plain Flask."""

from __future__ import annotations

from flask import Flask

from peerloan.web.http.tested_libraries import load_private


def make_application(import_name: str, **folders: str) -> Flask:
    """Make an application without views; `folders` are those of templates and static files."""
    application_class = find_lean_flask() or Flask
    app = application_class(import_name, **folders)  # type: ignore[arg-type]
    # By default, Flask redirects a path with two slashes. Behind a proxy that terminates TLS, it
    # would redirect to plain HTTP, and a client would send the loan there.
    app.url_map.merge_slashes = False
    return app


def find_lean_flask() -> type[Flask] | None:
    """Return the lean application's class; None if the installed Flask is not a tested release."""
    return load_private("flask", _import_lean_flask)


def _import_lean_flask() -> type[Flask]:
    from peerloan.web.http.lean_flask import Application

    return Application
