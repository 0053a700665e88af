"""Render pages and charts from the templates of this package."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """Render a template of `peerloan.reports`; every value is escaped unless it is Markup."""
    return _environment().get_template(template).render(**values)


def render_macro(template: str, macro: str, *values: Any) -> Markup:
    """Render a macro of a template; values are escaped, so a page can include the result."""
    rendered: Markup = getattr(_environment().get_template(template).module, macro)(*values)
    return rendered


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("peerloan.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
