"""Plots: valid SVG in the page's colours and font, the same each time, with ids of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from peerloan.reports import plots
from peerloan.reports.charts import Line, Scale

DRAW: dict[str, Callable[[], str]] = {
    "histogram": lambda: plots.histogram("Amounts", [1, 10, 100], [3, 4], log_x=True, log_y=True),
    "bars": lambda: plots.bars(
        "Rates",
        ["a", "b"],
        [0.1, 0.2],
        intervals=[(0.05, 0.2), (0.1, 0.4)],
        line=0.12,
        line_label="all 12 %",
        tones=["late", "muted"],
        most=0.5,
        scale="percent",
    ),
    "heat_map": lambda: plots.heat_map("Pairs", ["a", "b"], ["a", "b"], [[1, -0.5], [None, 1]]),
    "lines": lambda: plots.lines(
        "Curves",
        [
            Line("one", (0, 0.5, 1), (0, 0.8, 1), (0, 0.7, 1), (0, 0.9, 1)),
            Line("two", (0, 0.5, 1), (0, 0.6, 1), (0, 0.5, 1), (0, 0.7, 1), style="dots"),
            Line("three", (0, 0.5, 1), (0, 0.4, 1), (0, 0.3, 1), (0, 0.5, 1), style="step"),
        ],
        diagonal=True,
        level=0.2,
        x_range=(0, 1),
        y_range=(0, 1),
        x_label="x",
        y_label="y",
        x_scale="percent",
    ),
}


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("kind", DRAW)
def test_a_plot_is_an_element_of_a_page_that_needs_nothing_else(kind: str) -> None:
    svg = DRAW[kind]()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("width") == "100%"
    assert root.get("height") is None
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext("title")
    assert "http" not in svg
    assert "<style" not in svg
    assert "<image" not in svg


@pytest.mark.parametrize("kind", DRAW)
def test_colours_and_font_are_the_page_s(kind: str) -> None:
    svg = DRAW[kind]()
    outside = re.sub(r"var\(--[a-z]+, #[0-9a-f]{6}\)", "", svg)
    assert not re.search(r"#[0-9a-f]{6}", outside)
    assert "var(--" in svg
    assert "font-family" not in svg
    assert "DejaVu" not in svg
    assert "font-size" in svg


@pytest.mark.parametrize("kind", DRAW)
def test_the_same_figures_give_the_same_svg(kind: str) -> None:
    assert DRAW[kind]() == DRAW[kind]()


def test_ids_of_different_plots_differ_and_every_reference_is_there() -> None:
    drawn = [draw() for draw in DRAW.values()]
    drawn.append(plots.bars("Rates again", ["a", "b"], [0.1, 0.2]))
    ids = [name for svg in drawn for name in re.findall(r' id="([^"]+)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))
    for svg in drawn:
        for name in re.findall(r'(?:url\(|href=")#([\w-]+)', svg):
            assert f' id="{name}"' in svg


def test_any_text_stays_as_it_is() -> None:
    labels = ["$x_1$", "<b>&", "日本 🎉", "#010203 url(#x)", "100 %", 'id="a"']
    assert texts(plots.bars("<i>&$x$", labels, [1] * 6))[-6:] == labels


def test_long_labels_are_cut() -> None:
    (label,) = texts(plots.bars("Long", ["x" * 200], [1]))[-1:]
    assert len(label) < 30
    assert label.endswith("…")


def test_a_heat_map_of_many_long_names_is_wide_enough_for_its_numbers() -> None:
    names = [f"column number {number} of a table with long names" for number in range(20)]
    svg = plots.heat_map("Many", names, names, [[0.5] * 20] * 20)
    assert texts(svg).count("0.50") == 400
    width = re.search(r'viewBox="0 0 (\d+)', svg)
    assert width is not None
    assert int(width[1]) >= 20 * 32 + 7 * 22


def test_a_bar_beyond_the_axis_says_how_long_it_is() -> None:
    svg = plots.bars("Cut", ["a", "b"], [0.02, 0.154], most=0.05, scale="percent")
    assert "15.4 % ▸" in texts(svg)
    assert "2 % ▸" not in texts(svg)


@pytest.mark.parametrize(
    ("value", "scale", "shown"),
    [
        (0.025, "percent", "2.5 %"),
        (500, "number", "500"),
        (2_000, "number", "2,000"),
        (20_000, "number", "20k"),
        (1_500_000, "number", "1.5M"),
        (-20_000, "number", "-20k"),
        (3e9, "number", "3G"),
        (0.1 + 0.625, "number", "0.725"),
        (3.0, "count", "3"),
    ],
)
def test_ticks_are_short(value: float, scale: Scale, shown: str) -> None:
    assert plots.tick(value, scale) == shown
