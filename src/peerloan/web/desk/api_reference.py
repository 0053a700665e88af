"""The page with the API's reference, where developers can also send requests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, render_template
from werkzeug.exceptions import NotFound

from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.auth.tokens import SCOPES
from peerloan.web.services import services

# The installed package contains Swagger UI's own files; none of its code runs here.
_PACKAGE = find_spec("swagger_ui")
assert _PACKAGE is not None  # noqa: S101  pyproject.toml asks for it
assert _PACKAGE.origin is not None  # noqa: S101

_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


class _Docs(Blueprint):
    def send_static_file(self, filename: str) -> Response:
        """Send a file of the package that the page uses."""
        if filename not in _FILES:
            raise NotFound
        return super().send_static_file(filename)


blueprint = _Docs(
    "docs",
    __name__,
    static_folder=Path(_PACKAGE.origin).parent / "static",
    static_url_path="/docs/static",
)


@blueprint.get("/docs")
@require_scopes(*SCOPES)
def reference() -> str:
    """Render the reference of the API for the current champion."""
    models = services().serving_models
    if models.current is None:
        return render_template("waiting.html", refusal=models.refusal)
    return render_template("docs.html")
