"""The API reference page, by Swagger UI. Developers can also send requests from it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, render_template
from werkzeug.exceptions import NotFound

from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.auth.tokens import SCOPES
from peerloan.web.services import services

# The package has Swagger UI's static files. This process runs none of its code.
_PACKAGE = find_spec("swagger_ui")
assert _PACKAGE is not None  # noqa: S101  pyproject.toml requires it
assert _PACKAGE.origin is not None  # noqa: S101

_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


class _DocsBlueprint(Blueprint):
    """The blueprint of the page, which serves only the files of Swagger UI that the page uses."""

    def send_static_file(self, filename: str) -> Response:
        """Send one of the files. Raises NotFound for any other file of the package."""
        if filename not in _FILES:
            raise NotFound
        return super().send_static_file(filename)


blueprint = _DocsBlueprint(
    "docs",
    __name__,
    static_folder=Path(_PACKAGE.origin).parent / "static",
    static_url_path="/docs/static",
)


@blueprint.get("/docs")
@require_scopes(*SCOPES)
def reference() -> str:
    """Render the API reference for the current champion."""
    models = services().serving_models
    if models.current is None:
        return render_template("waiting.html", refusal=models.refusal)
    return render_template("docs.html")
