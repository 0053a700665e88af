"""Pages for people: templates of this package, filled in, each a file that stands alone."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """A page from a template of `peerloan.reports`; every value is escaped but SVG from plots.

    Plots are given as they are made and marked in the template: `{{ plot | safe }}`.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("peerloan.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
