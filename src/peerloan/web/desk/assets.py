"""Static files with a content hash in their URLs, so that browsers can cache them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

_YEAR = 365 * 24 * 3600


def register(app: Flask) -> None:
    """Add the content hash to the URL of each static file, and set the files' cache headers."""

    def folder_of(endpoint: str | None) -> Path | None:
        """Return the folder of the static files that an endpoint serves, if it does."""
        owner, _, name = (endpoint or "").rpartition(".")
        scaffold = app.blueprints.get(owner) if owner else app
        # Flask names the endpoint `static` in the application and in every blueprint.
        folder = name == "static" and scaffold is not None and scaffold.static_folder
        return Path(folder) if folder else None

    @app.url_defaults
    def add_digest(endpoint: str, values: dict[str, Any]) -> None:
        if (folder := folder_of(endpoint)) and "filename" in values:
            values.setdefault("v", _digest(folder / values["filename"]))

    @app.after_request
    def set_cache_header(response: Response) -> Response:
        # Only files are passed through, so this returns for most responses.
        if not response.direct_passthrough and response.status_code != 304:
            return response
        folder = folder_of(request.endpoint)
        if folder is None or response.status_code not in (200, 304):
            return response
        digest = _digest(folder / (request.view_args or {})["filename"])
        # During a change of releases, the URL may come from a page of the other release. Then its
        # hash is not that of the content, and the response must not be cached.
        is_current = request.args.get("v") == digest
        response.headers["Cache-Control"] = (
            f"public, max-age={_YEAR}, immutable" if is_current else "no-cache"
        )
        return response


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
