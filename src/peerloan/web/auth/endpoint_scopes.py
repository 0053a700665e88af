"""The scopes that each endpoint requires, or that it is public."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Flask

from peerloan.errors import PeerLoanError
from peerloan.web.auth.tokens import SCOPES

_View = TypeVar("_View", bound=Callable[..., Any])
# The scopes of which a caller needs one; None: the endpoint is public.
Guard = frozenset[str] | None
# Flask's own views of static files, which are the same for everybody; the sign-in page needs
# styles.
_FILES: Mapping[str, Guard] = {
    "static": None,
    "bootstrap.static": None,
    "docs.static": frozenset(SCOPES),
}


class UnguardedView(PeerLoanError, RuntimeError):
    """An endpoint without a guard."""


def public(view: _View) -> _View:
    """Mark a view that needs no token."""
    view.guard = None  # type: ignore[attr-defined]
    return view


def require_scopes(*scopes: str) -> Callable[[_View], _View]:
    """Mark a view that needs a token with one of these scopes."""

    def mark(view: _View) -> _View:
        view.guard = frozenset(scopes)  # type: ignore[attr-defined]
        return view

    return mark


def required_scopes(app: Flask) -> dict[str, Guard]:
    """Return the guard of each endpoint. Raises UnguardedView if one has none."""
    guards = dict(_FILES)
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if rule.endpoint not in _FILES:
            if not hasattr(view, "guard"):
                raise UnguardedView(
                    f"{rule.rule}: {rule.endpoint} says nothing of who may ask: mark the view "
                    "with needs(…) or public, below its route"
                )
            guards[rule.endpoint] = view.guard
    return guards


def by_address(app: Flask) -> dict[tuple[str, str], Guard]:
    """Return the guards by method and address, in OpenAPI's notation of addresses."""
    guards = required_scopes(app)
    return {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule)): guards[rule.endpoint]
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
