"""Plots for reports: each function draws one and gives it as inline SVG.

Take these where a page must stand alone: the SVG needs no script, no font and no file beside it.
Its colours are the page's CSS variables (`COLOURS`), so it follows the page into dark mode and onto
paper; its text stays text in the page's font, and it is as wide as its place. The same figures
always give the same SVG.

What comes in is already aggregated. A title is needed by each: screen readers say it, and it keeps
the ids of several plots on one page apart.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from peerloan.loan.text import show_bound
from peerloan.reports.charts import Line, Scale, Tone

# CSS variables and what they are in a page that doesn't set them.
COLOURS = {
    "ink": "#1c2733",
    "muted": "#5c6875",
    "grid": "#e1e6eb",
    "accent": "#2f6fb2",
    "late": "#c4512d",
    "green": "#3d8361",
    "violet": "#7d5aa6",
}
# Matplotlib draws in colours that nothing else has; in the SVG they become the variables.
_DRAWN = {name: f"#0102{number:02x}" for number, name in enumerate(COLOURS, 3)}
INK, MUTED, GRID, ACCENT, LATE = (_DRAWN[name] for name in list(COLOURS)[:5])
_LINES = [_DRAWN[name] for name in ("accent", "late", "green", "violet", "ink", "muted")]
_DASHES = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)), "-"]

_WIDTH = 420  # in the SVG's own units, in which a letter of text has size 11
_LONGEST = 26
# Of a heat map: the longest name at its sides, and the width of a cell.
_LONGEST_OF_MANY, _CELL = 22, 34
_WIDE = 720
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "peerloan",
    "text.parse_math": False,  # a level may be named $x$
    "axes.unicode_minus": True,
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[float],
    *,
    x_label: str = "",
    scale: Scale = "number",
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """How many loans lie between each two edges; `edges` has one more than `counts`."""
    with _drawing(title, 210) as (drawing, axes):
        axes.bar(
            edges[:-1], counts, np.diff(edges), align="edge", color=ACCENT, linewidth=0, alpha=0.85
        )
        axes.grid(axis="y")
        _scale(axes, "x", scale, log_x)
        _scale(axes, "y", "number", log_y)
        axes.set_xlabel(x_label)
        axes.set_ylabel("loans")
    return drawing.svg


def bars(
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    intervals: Sequence[tuple[float, float]] | None = None,
    line: float | None = None,
    line_label: str = "",
    tones: Sequence[Tone] | None = None,
    most: float | None = None,
    x_label: str = "",
    scale: Scale = "number",
) -> str:
    """Horizontal bars, first on top, with (low, high) intervals and a line to compare with.

    `tones` are the bars' colours; `most` is where the axis ends and what is longer is cut.
    """
    with _drawing(title, 56 + 23 * len(labels)) as (drawing, axes):
        places = np.arange(len(labels))
        axes.barh(
            places,
            values,
            height=0.68,
            color=[_DRAWN[tone] for tone in tones or ["accent"] * len(labels)],
            alpha=0.55 if intervals else 0.85,
        )
        if intervals:
            axes.hlines(places, *zip(*intervals, strict=True), color=INK, linewidth=1.3)
        for place, value in zip(places.tolist(), values, strict=True):
            if most is not None and value > most:  # a bar that goes on beyond the edge
                shown = f"{tick(round(value, 3), scale)} ▸"
                axes.text(most, place, shown, ha="right", va="center_baseline", size=10)
        if line is not None:
            axes.axvline(line, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            above = axes.get_xaxis_transform()
            axes.text(line, 1.01, line_label, ha="center", va="bottom", transform=above, size=10)
        axes.set_yticks(places, [_short(label) for label in labels])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(left=0, right=most)
        axes.grid(axis="x")
        _scale(axes, "x", scale)
        axes.set_xlabel(x_label)
    return drawing.svg


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
) -> str:
    """Values from −1 to 1 as colours: one for above 0, one for below; None leaves a cell empty."""
    rows = [_short(each, _LONGEST_OF_MANY) for each in rows]
    columns = [_short(each, _LONGEST_OF_MANY) for each in columns]
    beside, above = (7 * max(map(len, names), default=0) for names in (rows, columns))
    # The columns' names lean to the right, beyond the last cell.
    width = max(_WIDE, beside + 0.8 * above + 40 + _CELL * len(columns))
    with _drawing(title, 40 + 0.7 * above + 26 * len(rows), width) as (drawing, axes):
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value is not None:
                    _cell(axes, x, y, value)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.tick_top()
        axes.tick_params(top=False, labelcolor=INK)
        axes.set_xticks(range(len(columns)), columns)
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.spines[:].set_visible(False)
    return drawing.svg


def lines(
    title: str,
    series: Sequence[Line],
    *,
    x_label: str = "",
    y_label: str = "",
    x_scale: Scale = "number",
    y_scale: Scale = "number",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    level: float | None = None,
) -> str:
    """Lines, steps or dots over the same axes, told apart by colour and by dashes.

    `diagonal` draws y = x (chance in a ROC curve, perfect calibration), `level` a line at this y.
    """
    with _drawing(title, 300) as (drawing, axes):
        if diagonal:
            axes.axline((0, 0), slope=1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for number, each in enumerate(series):
            _line(axes, each, _LINES[number % len(_LINES)], _DASHES[number % len(_DASHES)])
        axes.grid()
        _scale(axes, "x", x_scale)
        _scale(axes, "y", y_scale)
        if x_range:
            axes.set_xlim(*x_range)
        if y_range and y_range[0] < y_range[1]:
            axes.set_ylim(*y_range)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(series) > 1:
            axes.legend(loc="best", handlelength=2.4)
    return drawing.svg


def _line(axes: Any, line: Line, colour: str, dashes: Any) -> None:
    if line.low is not None and line.high is not None:
        if line.style == "dots":
            axes.vlines(line.x, line.low, line.high, color=colour, linewidth=1.2)
        else:
            step = "post" if line.style == "step" else None
            axes.fill_between(
                line.x, line.low, line.high, step=step, color=colour, alpha=0.15, linewidth=0
            )
    look = {"color": colour, "label": _short(line.name)}
    if line.style == "dots":
        axes.plot(line.x, line.y, "o-", markersize=4.5, linewidth=1, **look)
    else:
        style = "steps-post" if line.style == "step" else "default"
        axes.plot(line.x, line.y, linewidth=1.8, linestyle=dashes, drawstyle=style, **look)


def _cell(axes: Any, x: int, y: int, value: float) -> None:
    """A cell of a heat map. Faint enough that its text can be read in light and in dark."""
    colour = ACCENT if value >= 0 else LATE
    box = Rectangle(
        (x - 0.48, y - 0.47), 0.96, 0.94, color=colour, alpha=0.05 + 0.6 * abs(value), linewidth=0
    )
    axes.add_patch(box)
    shown = f"{value:.2f}".replace("-", "−")
    axes.text(x, y, shown, ha="center", va="center_baseline", size=10)


def _scale(axes: Any, which: Literal["x", "y"], scale: Scale, log: bool = False) -> None:
    """Few ticks, written as people write numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=scale == "count"))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: tick(value, scale)))


def tick(value: float, scale: Scale = "number") -> str:
    """A number at an axis: '20k', '1.5M', '2.5 %'."""
    if scale == "percent":
        return f"{value * 100:g} %"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if letter == 'k' else size):g}{letter}"
    # As many digits as tell two ticks apart, without those that floating point adds.
    return show_bound(float(f"{value:.6g}"))


def _short(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class _Drawing:
    """A plot that becomes SVG when its `with` ends."""

    svg = ""


@contextmanager
def _drawing(title: str, height: float, width: float = _WIDTH) -> Iterator[tuple[_Drawing, Any]]:
    """A figure with one pair of axes; not by pyplot, which keeps figures for the whole process."""
    drawing = _Drawing()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Only the size of letters is measured in matplotlib's font; the browser has more of them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        axes = figure.add_subplot()
        yield drawing, axes
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    drawing.svg = _inline(buffer.getvalue(), title)


def _inline(svg: bytes, title: str) -> str:
    """Matplotlib's SVG file as an element of a page."""
    root = ElementTree.fromstring(svg)  # noqa: S314  made here, from no one's XML
    prefix = "p" + hashlib.sha256(title.encode() + svg).hexdigest()[:10]
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg.decode()))
    for element in list(root.iter()):
        element.tag = element.tag.removeprefix(_SVG)
        for style in element.findall(f"{_SVG}style"):  # would hold for the whole page
            element.remove(style)
        element.tail = None
        if element.tag not in ("text", "tspan"):
            element.text = None
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            if name != "id":
                changed = _colours(value).replace("url(#", f"url(#{prefix}-")
                if name == _LINK:
                    name, changed = "href", f"#{prefix}-{value[1:]}"
                element.set(name, changed)
            elif value in used:  # the others name parts that nobody looks for
                element.set(name, f"{prefix}-{value}")
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update(
        {
            "class": "plot",
            "viewBox": box,
            "width": "100%",
            "role": "img",
            "aria-label": title,
            "stroke-linejoin": "round",
        }
    )
    heading = ElementTree.Element("title")
    heading.text = title
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode")


_FONT = re.compile(r"font: ([^;]*?)([\d.]+px) [^;]*|font-family: [^;]*;? ?")


def _colours(style: str) -> str:
    """Drawn colours as the page's, and fonts as the page's."""
    for name, drawn in _DRAWN.items():
        style = style.replace(drawn, f"var(--{name}, {COLOURS[name]})")
    return _FONT.sub(lambda found: f"font-size: {found[2]}" if found[2] else "", style)
