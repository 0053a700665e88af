"""Styles and scripts, named by their content so that browsers and proxies may keep them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

_YEAR = 365 * 24 * 3600


def register(app: Flask) -> None:
    """Give each static file's address the digest of its content, and say how long to keep it."""

    def folder_of(endpoint: str | None) -> Path | None:
        owner, _, name = (endpoint or "").rpartition(".")
        holder = app.blueprints.get(owner) if owner else app
        # The endpoint `static` is Flask's own, of the application and of any blueprint.
        found = name == "static" and holder is not None and holder.static_folder
        return Path(found) if found else None

    @app.url_defaults
    def name_by_content(endpoint: str, values: dict[str, Any]) -> None:
        if (folder := folder_of(endpoint)) and "filename" in values:
            values.setdefault("v", _digest(folder / values["filename"]))

    @app.after_request
    def say_how_long(response: Response) -> Response:
        # Files are all that this application passes through; most answers end here.
        if not response.direct_passthrough and response.status_code != 304:
            return response
        folder = folder_of(request.endpoint)
        if folder is None or response.status_code not in (200, 304):
            return response
        digest = _digest(folder / (request.view_args or {})["filename"])
        # While one release replaces another, an address may come from the other one's page: what is
        # sent then is not what the address names, and is looked for anew the next time.
        kept = request.args.get("v") == digest
        response.headers["Cache-Control"] = (
            f"public, max-age={_YEAR}, immutable" if kept else "no-cache"
        )
        return response


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
