"""The page where a developer reads the API's description and tries it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, render_template

from peerloan.service.api import champion

# The installed package holds Swagger UI's own files; nothing of its code runs here.
_PACKAGE = find_spec("swagger_ui")
assert _PACKAGE is not None  # noqa: S101  pyproject.toml asks for it
assert _PACKAGE.origin is not None  # noqa: S101

blueprint = Blueprint(
    "docs",
    __name__,
    static_folder=Path(_PACKAGE.origin).parent / "static",
    static_url_path="/docs/static",
)


@blueprint.get("/docs")
def reference() -> str:
    """The API of the champion that serves now, to be read and tried."""
    here = champion()
    if here.current is None:
        return render_template("waiting.html", refusal=here.refusal)
    return render_template("docs.html")
