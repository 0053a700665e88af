"""Protection against cross-site request forgery: another site's page may change nothing here.

A browser sends the session cookie with such a request, and on loopback it needs no cookie. Requests
with a bearer token need no check: a browser never adds one by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from peerloan.web.http.problems import RequestError

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def refuse_other_sites(environ: Mapping[str, Any]) -> None:
    """Raise RequestError 403 if a page of another site made the browser send a changing request."""
    if environ["REQUEST_METHOD"] in _SAFE_METHODS:
        return
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:  # an older browser, or a program
        is_own = origin is None or _split(origin).netloc == environ.get("HTTP_HOST")
    if not is_own:
        raise RequestError(403, "Forbidden", "expected a page of this site, given another one's")


def _split(address: str) -> SplitResult:
    """Split an address into its parts, which are empty if it can't be parsed."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
