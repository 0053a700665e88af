"""Protection against cross-site request forgery: a page of another site can't change anything.

A browser may send the session cookie with a request that such a page makes, and on loopback a
request needs no cookie at all. Requests with a bearer token need no check, because a browser never
adds one by itself.
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
        is_same_site = site in ("same-origin", "none")
    else:  # an older browser, or a program
        is_same_site = origin is None or _split(origin).netloc == environ.get("HTTP_HOST")
    if not is_same_site:
        raise RequestError(
            403,
            "Forbidden",
            "expected a request from a page of this site, given one from a page of another site",
        )


def _split(address: str) -> SplitResult:
    """Split an address into its parts, which are empty if it can't be parsed."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
