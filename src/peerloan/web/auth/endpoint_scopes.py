"""Guards of endpoints: the scopes that each one requires, or that it is public."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Flask

from peerloan.errors import PeerLoanError
from peerloan.web.auth.tokens import SCOPES

_View = TypeVar("_View", bound=Callable[..., Any])
# The scopes of which a caller needs at least one; None means that the endpoint is public.
Guard = frozenset[str] | None
# The guards of Flask's views of static files. Styles are public: the sign-in page needs them.
_STATIC_FILES: Mapping[str, Guard] = {
    "static": None,
    "bootstrap.static": None,
    "docs.static": frozenset(SCOPES),
}


class UnguardedView(PeerLoanError, RuntimeError):
    """An endpoint has no guard, so it is undefined who may call it."""


def public(view: _View) -> _View:
    """Mark a view as public: it needs no token. Write this decorator below the route."""
    view.guard = None  # type: ignore[attr-defined]
    return view


def require_scopes(*scopes: str) -> Callable[[_View], _View]:
    """Mark a view that needs a token with one of these scopes. Write it below the route."""

    def mark(view: _View) -> _View:
        view.guard = frozenset(scopes)  # type: ignore[attr-defined]
        return view

    return mark


def required_scopes(app: Flask) -> dict[str, Guard]:
    """Return the guard of each endpoint, by its name. Raises UnguardedView if one has none."""
    guards = dict(_STATIC_FILES)
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if rule.endpoint not in _STATIC_FILES:
            if not hasattr(view, "guard"):
                raise UnguardedView(
                    f"{rule.rule}: the view {rule.endpoint} has no guard; add @require_scopes(…) "
                    "or @public below its route"
                )
            guards[rule.endpoint] = view.guard
    return guards


def by_address(app: Flask) -> dict[tuple[str, str], Guard]:
    """Return the guards by method and path, with paths in OpenAPI's notation."""
    guards = required_scopes(app)
    return {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule)): guards[rule.endpoint]
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
