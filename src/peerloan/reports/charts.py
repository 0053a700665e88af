"""Charts."""

from __future__ import annotations

from typing import Literal

import msgspec

Scale = Literal["number", "percent", "count"]
Tone = Literal["accent", "late", "muted"]


class Line(msgspec.Struct, frozen=True):
    """A line of a chart; `low` and `high` are the ends of its interval at each x."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    style: Literal["line", "step", "dots"] = "line"
