"""Charts of reports: a function computes the layout, and a template renders it as inline SVG.

A chart needs no script, font or other file. Its colours are CSS variables of the page
(`charts.css.j2`), so it follows the page's dark mode and print style. No element has a style
attribute, so a strict Content-Security-Policy allows it. The same figures always give the same SVG.

The functions draw figures that are already aggregated. Each chart has a title for screen readers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from markupsafe import Markup

from peerloan.reports.axes import Axis, Scale, Tick, draw_ticks, text_width, tick, with_margin
from peerloan.reports.templating import render_macro

Tone = Literal["accent", "late", "muted"]
Range = tuple[float, float]

_WIDTH, _WIDE = 420, 720
_RIGHT = 20
_LONGEST = 26
# Number of line styles in `charts.css.j2`.
_LOOKS = 6
# Heat map: length of the longest name shown, and size of a cell.
_LONGEST_OF_MANY, _CELL_WIDTH, _CELL_HEIGHT = 22, 34, 26
# Height of a row of bars, of a bar, and of a line of text.
_ROW, _BAR, _TEXT = 23, 15.6, 16


class Line(msgspec.Struct, frozen=True):
    """A line of a chart; `low` and `high` are the ends of its interval at each x."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    style: Literal["line", "step", "dots"] = "line"


@dataclass(frozen=True)
class Frame:
    """A chart's size, the area between its axes, and its axis labels."""

    title: str
    width: float
    height: float
    x: Axis
    y: Axis
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class AxisData:
    """The data of an axis: its ends, its label, and its number format."""

    ends: Range
    label: str
    scale: Scale = "number"
    is_log: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle: its corner, size, style and text."""

    x: float
    y: float
    width: float
    height: float
    tone: str
    text: str = ""
    opacity: float = 1.0


@dataclass(frozen=True)
class Interval:
    """The ends of an interval at a position."""

    place: float
    low: float
    high: float


@dataclass(frozen=True)
class DrawnLine:
    """A line in drawing units; `look` is its style (colour and dashes)."""

    name: str
    look: int
    style: str
    points: str
    area: str
    intervals: tuple[Interval, ...]
    dots: tuple[tuple[float, float], ...]
    legend_place: float


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    x_label: str = "",
    scale: Scale = "number",
    log_x: bool = False,
    log_y: bool = False,
) -> Markup:
    """Draw the number of loans between each two edges; there is one more edge than counts."""
    lowest = min((count for count in counts if count > 0), default=1.0)
    y_range = (lowest / 2 if log_y else 0.0, 1.05 * max(*counts, lowest))
    x_axis = AxisData((edges[0], edges[-1]), x_label, scale, log_x)
    frame = _frame(title, 210, x_axis, AxisData(y_range, "loans", is_log=log_y))
    boxes = []
    for (low, high), count in zip(itertools.pairwise(edges), counts, strict=True):
        left, right, top = frame.x.place(low), frame.x.place(high), frame.y.place(count)
        if count > 0:
            boxes.append(Box(left, top, right - left, frame.y.start - top, "accent", opacity=0.85))
    return render_macro("charts.html.j2", "histogram", frame, boxes)


def bars(
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    intervals: Sequence[Range] | None = None,
    line: float | None = None,
    line_label: str = "",
    tones: Sequence[Tone] | None = None,
    most: float | None = None,
    x_label: str = "",
    scale: Scale = "number",
) -> Markup:
    """Draw horizontal bars, the first on top, with (low, high) intervals and a line to compare.

    `tones` are the bars' colours. The axis ends at `most`, and longer bars are cut off.
    """
    labels = [_short(label) for label in labels]
    top = 4 if line is None else _TEXT
    bottom = top + _ROW * len(labels) + 4
    reach = most or 1.05 * max([*values, *(high for _, high in intervals or ()), line or 0.0]) or 1
    left = max((text_width(label) for label in labels), default=0.0) + 8
    x = Axis(0.0, reach, left, _WIDTH - _RIGHT)
    middles = [top + 2 + _ROW * (place + 0.5) for place in range(len(labels))]
    frame = Frame(
        title,
        _WIDTH,
        bottom + _TEXT * (2 if x_label else 1) + 4,
        x,
        Axis(0.0, 1.0, bottom, top),
        draw_ticks(x, scale),
        tuple(map(Tick, middles, labels)),
        x_label,
    )
    looks = tones or ["accent"] * len(labels)
    boxes = [
        Box(
            x.start,
            middle - _BAR / 2,
            x.place(value) - x.start,
            _BAR,
            tone,
            # A bar that is cut off shows its value.
            f"{tick(round(value, 3), scale)} ▸" if most is not None and value > most else "",
            0.55 if intervals else 0.85,
        )
        for middle, value, tone in zip(middles, values, looks, strict=True)
    ]
    ends = [
        Interval(middle, x.place(low), x.place(high))
        for middle, (low, high) in zip(middles, intervals or (), strict=False)
    ]
    compared = None if line is None else Tick(x.place(line), line_label)
    return render_macro("charts.html.j2", "bars", frame, boxes, ends, compared)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
) -> Markup:
    """Draw values from −1 to 1 in two colours, by their sign; the cell of None is empty."""
    rows = [_short(name, _LONGEST_OF_MANY) for name in rows]
    columns = [_short(name, _LONGEST_OF_MANY) for name in columns]
    left, above = (max(map(text_width, names), default=0.0) + 8 for names in (rows, columns))
    # The column names are slanted to the right, beyond the last cell.
    top, beyond = 0.65 * above + 12, 0.77 * above
    width = max(_WIDE, left + _CELL_WIDTH * len(columns) + beyond)
    x = Axis(0.0, len(columns), left, width - beyond)
    y = Axis(0.0, len(rows), top, top + _CELL_HEIGHT * len(rows))
    frame = Frame(
        title,
        width,
        y.end + 4,
        x,
        y,
        tuple(Tick(x.place(place + 0.5), name) for place, name in enumerate(columns)),
        tuple(Tick(y.place(place + 0.5), name) for place, name in enumerate(rows)),
    )
    boxes = [
        _cell(x.place(column), y.place(row), x.place(1) - x.start, value)
        for row, row_values in enumerate(values)
        for column, value in enumerate(row_values)
        if value is not None
    ]
    return render_macro("charts.html.j2", "heat_map", frame, boxes)


def _cell(x: float, y: float, width: float, value: float) -> Box:
    """Make a cell of a heat map, so light that its text is readable in light and dark mode."""
    tone = "accent" if value >= 0 else "late"
    text = f"{value:.2f}".replace("-", "−")
    return Box(x + 1, y + 1, width - 2, _CELL_HEIGHT - 2, tone, text, 0.05 + 0.6 * abs(value))


def lines(
    title: str,
    series: Sequence[Line],
    *,
    x_label: str = "",
    y_label: str = "",
    x_scale: Scale = "number",
    y_scale: Scale = "number",
    x_range: Range | None = None,
    y_range: Range | None = None,
    diagonal: bool = False,
    level: float | None = None,
) -> Markup:
    """Draw lines, steps or dots on the same axes, distinguished by colour and dashes.

    `diagonal` draws y = x (chance in a ROC curve, perfect calibration), `level` a line at this y.
    """
    if y_range is None or not y_range[0] < y_range[1]:
        y_range = with_margin([end for line in series for end in _heights(line)])
    x_range = x_range or with_margin([x for line in series for x in line.x])
    frame = _frame(
        title,
        300,
        AxisData(x_range, x_label, x_scale),
        AxisData(y_range, y_label, y_scale),
        has_legend=len(series) > 1,
    )
    low, high = max(frame.x.low, frame.y.low), min(frame.x.high, frame.y.high)
    compared = [_across(frame, ends) for ends in [(low, low), (high, high)]] if diagonal else []
    drawn = list(_drawn(frame, series))
    level_place = None if level is None else frame.y.place(level)
    return render_macro("charts.html.j2", "lines", frame, drawn, compared, level_place)


def _heights(line: Line) -> Iterator[float]:
    yield from line.y
    yield from line.low or ()
    yield from line.high or ()


def _across(frame: Frame, ends: Range) -> Range:
    return frame.x.place(ends[0]), frame.y.place(ends[1])


def _drawn(frame: Frame, series: Sequence[Line]) -> Iterator[DrawnLine]:
    legend = frame.x.start
    for number, line in enumerate(series):
        low, high = line.low, line.high
        has_dots = line.style == "dots"
        x = [frame.x.place(value) for value in line.x]
        points = _points(frame, line, line.y)
        area = ""
        intervals: tuple[Interval, ...] = ()
        if low is not None and high is not None:
            if has_dots:
                places = map(frame.y.place, low), map(frame.y.place, high)
                intervals = tuple(map(Interval, x, *places))
            else:
                area = _joined([*_points(frame, line, low), *_points(frame, line, high)[::-1]])
        yield DrawnLine(
            _short(line.name),
            number % _LOOKS,
            line.style,
            _joined(points),
            area,
            intervals,
            tuple(points) if has_dots else (),
            legend,
        )
        legend += text_width(_short(line.name)) + 48


def _points(frame: Frame, line: Line, heights: Sequence[float]) -> list[Range]:
    """Return the corners of a line; a step continues to the next x."""
    corners = [_across(frame, point) for point in zip(line.x, heights, strict=True)]
    if line.style != "step":
        return corners
    steps = corners[:1]
    for (_, before), (x, y) in itertools.pairwise(corners):
        steps += [(x, before), (x, y)]
    return steps


def _joined(points: Sequence[Range]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _frame(
    title: str, height: float, x: AxisData, y: AxisData, *, has_legend: bool = False
) -> Frame:
    """Make the frame of a chart, with ticks at the left and at the bottom."""
    bottom = height - _TEXT - (_TEXT if x.label else 0) - 4
    y_axis = Axis(*y.ends, bottom, _TEXT + 4 if has_legend else 8, y.is_log)
    y_ticks = draw_ticks(y_axis, y.scale)
    left = max((text_width(tick_.text) for tick_ in y_ticks), default=0.0) + 8
    x_axis = Axis(*x.ends, left + (_TEXT if y.label else 2), _WIDTH - _RIGHT, x.is_log)
    x_ticks = draw_ticks(x_axis, x.scale)
    return Frame(title, _WIDTH, height, x_axis, y_axis, x_ticks, y_ticks, x.label, y.label)


def _short(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
