"""Pages for people: templates of this package, filled in, each a file that stands alone."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """A page from a template of `peerloan.reports`; every value is escaped but what is Markup."""
    return _environment().get_template(template).render(**values)


def render_macro(template: str, macro: str, *values: Any) -> Markup:
    """What a macro of a template makes of these values; safe to stand in a page."""
    drawn: Markup = getattr(_environment().get_template(template).module, macro)(*values)
    return drawn


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("peerloan.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
