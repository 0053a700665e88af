"""Static files with a content hash in their address, so that they can be cached."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

_YEAR = 365 * 24 * 3600


def register(app: Flask) -> None:
    """Add the content's digest to each static file's address, and set the cache headers."""

    def folder_of(endpoint: str | None) -> Path | None:
        owner, _, name = (endpoint or "").rpartition(".")
        holder = app.blueprints.get(owner) if owner else app
        # Flask uses the endpoint name `static` for the application and for any blueprint.
        found = name == "static" and holder is not None and holder.static_folder
        return Path(found) if found else None

    @app.url_defaults
    def name_by_content(endpoint: str, values: dict[str, Any]) -> None:
        if (folder := folder_of(endpoint)) and "filename" in values:
            values.setdefault("v", _digest(folder / values["filename"]))

    @app.after_request
    def say_how_long(response: Response) -> Response:
        # Only files are passed through, so most responses return here.
        if not response.direct_passthrough and response.status_code != 304:
            return response
        folder = folder_of(request.endpoint)
        if folder is None or response.status_code not in (200, 304):
            return response
        digest = _digest(folder / (request.view_args or {})["filename"])
        # While releases are replaced, an address may come from the other release's page. Then the
        # content differs from the address and must not be cached.
        kept = request.args.get("v") == digest
        response.headers["Cache-Control"] = (
            f"public, max-age={_YEAR}, immutable" if kept else "no-cache"
        )
        return response


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
