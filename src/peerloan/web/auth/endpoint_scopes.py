"""What an address asks of its callers: each says by which scopes it opens, or that it is public."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flask import Flask

from peerloan.errors import PeerLoanError
from peerloan.web.auth.tokens import SCOPES

_View = TypeVar("_View", bound=Callable[..., Any])
# The scopes of which a caller needs one; None: the address is public.
Guard = frozenset[str] | None
# Views that Flask makes, for files that are the same for everybody: the sign-in needs styles.
_FILES: Mapping[str, Guard] = {
    "static": None,
    "bootstrap.static": None,
    "docs.static": frozenset(SCOPES),
}


class GuardError(PeerLoanError, RuntimeError):
    """An address that does not say who may ask."""


def public(view: _View) -> _View:
    """Mark a view that needs no token."""
    view.guard = None  # type: ignore[attr-defined]
    return view


def needs(*scopes: str) -> Callable[[_View], _View]:
    """Mark a view that needs a token with one of these scopes."""

    def mark(view: _View) -> _View:
        view.guard = frozenset(scopes)  # type: ignore[attr-defined]
        return view

    return mark


def required_scopes(app: Flask) -> dict[str, Guard]:
    """What each endpoint of an application asks for; raises GuardError if one says nothing."""
    guards = dict(_FILES)
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if rule.endpoint not in _FILES:
            if not hasattr(view, "guard"):
                raise GuardError(
                    f"{rule.rule}: {rule.endpoint} says nothing of who may ask: mark the view "
                    "with needs(…) or public, below its route"
                )
            guards[rule.endpoint] = view.guard
    return guards


def by_address(app: Flask) -> dict[tuple[str, str], Guard]:
    """The same by method and address, as OpenAPI writes addresses."""
    guards = required_scopes(app)
    return {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule)): guards[rule.endpoint]
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
