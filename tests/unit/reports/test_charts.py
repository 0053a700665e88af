"""Charts: valid, deterministic SVG in the page's colours and font, without style attributes."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from peerloan.reports import charts, templating
from peerloan.reports.axes import Scale, log_ticks, tick, ticks
from peerloan.reports.charts import Line

DRAW: dict[str, Callable[[], str]] = {
    "histogram": lambda: charts.histogram("Amounts", [1, 10, 100], [3, 4], log_x=True, log_y=True),
    "bars": lambda: charts.bars(
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
    "heat_map": lambda: charts.heat_map("Pairs", ["a", "b"], ["a", "b"], [[1, -0.5], [None, 1]]),
    "lines": lambda: charts.lines(
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


def styles() -> str:
    return templating.render("charts.css.j2")


def page() -> str:
    """The page that all reports extend."""
    return templating.render("report_base.html.j2")


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("kind", DRAW)
def test_a_chart_is_a_self_contained_element(kind: str) -> None:
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
    """Only by classes: a strict Content-Security-Policy forbids style attributes."""
    svg = DRAW[kind]()
    for element in ElementTree.fromstring(svg).iter():
        names = {name for name in element.attrib if name.startswith(("style", "font", "on"))}
        assert not names, element.tag
        assert element.get("fill") is element.get("stroke") is None
    css = styles()
    used = {name for names in re.findall(r'class="([^"]+)"', svg) for name in names.split()}
    assert used - {"plot", "line", "step"} <= set(re.findall(r"\.([a-z]+\d?)", css))
    assert set(re.findall(r"var\(--([a-z]+)\)", css)) <= set(re.findall(r"--([a-z]+):", page()))
    assert not re.search(r"#[0-9a-f]{3,6}\b", svg + css)


@pytest.mark.parametrize("kind", DRAW)
def test_the_same_figures_give_the_same_svg(kind: str) -> None:
    assert DRAW[kind]() == DRAW[kind]()


def test_charts_have_no_ids_that_could_collide_on_a_page() -> None:
    for draw in DRAW.values():
        assert not re.search(r'\sid="|url\(|href=', draw())


def test_all_elements_are_inside_the_chart() -> None:
    for draw in DRAW.values():
        root = ElementTree.fromstring(draw())
        width, height = map(float, root.get("viewBox", "").split()[2:])
        for element in root.iter():
            for name, most in (
                *(("x", width), ("x1", width), ("x2", width), ("cx", width)),
                *(("y", height), ("y1", height), ("y2", height), ("cy", height)),
            ):
                assert 0 <= float(element.get(name, 0)) <= most, (element.tag, name)
            for x, y in re.findall(r"([\d.-]+),([\d.-]+)", element.get("points", "")):
                assert 0 <= float(x) <= width
                assert 0 <= float(y) <= height


def test_values_have_the_positions_of_the_ticks() -> None:
    line = Line("one", (0.0, 10.0), (0.0, 4.0), style="dots")
    root = ElementTree.fromstring(
        charts.lines("Line", [line], x_range=(0, 10), y_range=(0, 4), diagonal=True)
    )
    dots = [(each.get("cx"), each.get("cy")) for each in root.iter("circle")]
    grid = [each.attrib for each in root.iter("line") if each.get("class") == "grid"]
    columns = [each["x1"] for each in grid if each["x1"] == each["x2"]]
    rows = [each["y1"] for each in grid if each["y1"] == each["y2"]]
    assert dots == [(columns[0], rows[0]), (columns[-1], rows[-1])]
    assert texts(charts.lines("Line", [line], x_range=(0, 10), y_range=(0, 4)))[:5] == [
        *("0", "1", "2", "3", "4")
    ]


def test_intervals_are_drawn_in_full() -> None:
    series = Line("one", (0, 1), (0.5, 0.5), (0.1, 0.2), (0.9, 0.8), style="dots")
    root = ElementTree.fromstring(charts.lines("Intervals", [series]))
    dots = [float(dot.get("cy", "")) for dot in root.iter("circle")]
    whiskers = [line for line in root.iter("line") if line.get("class") == "whisker"]
    for dot, whisker in zip(dots, whiskers, strict=True):
        below, above = float(whisker.get("y1", "")) - dot, dot - float(whisker.get("y2", ""))
        assert above == pytest.approx(below, abs=0.2)
        assert above > 10


@pytest.mark.parametrize("edges", [(-1.5e308, 0, 1.5e308), (0, 5e-324, 1e-323), (1e16, 1e16 + 2)])
def test_extreme_numbers_have_a_position(edges: tuple[float, ...]) -> None:
    svg = charts.histogram("Numbers", edges, [1] * (len(edges) - 1))
    assert "nan" not in svg
    assert "inf" not in svg
    assert len(re.findall("<rect", svg)) == len(edges) - 1


def test_bars_are_as_long_as_their_values() -> None:
    root = ElementTree.fromstring(charts.bars("Rates", ["a", "b", "c"], [1.0, 2.0, 0.0], most=2.0))
    widths = [float(each.get("width", "")) for each in root.iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.1)
    assert widths[2] == 0


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.105, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (-3, 14, [0, 5, 10]),
        (5_000, 260_000, [50_000, 100_000, 150_000, 200_000, 250_000]),
        (0.9, 1.1, [0.9, 0.95, 1.0, 1.05, 1.1]),
        (-1e300, 1e300, [-1e300, -5e299, 0, 5e299, 1e300]),
        (-1.6e308, 1.6e308, [-1e308, 0, 1e308]),
        (0, 5e-324, [0, 5e-324]),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(found)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (1, 1_000, [1, 10, 100, 1_000]),
        (3, 80, [5, 10, 20, 50]),
        (1, 1e12, [1, 1e3, 1e6, 1e9, 1e12]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, found: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(found)


def test_ticks_of_counts_are_whole() -> None:
    assert ticks(0.9, 3.1, whole=True) == [1, 2, 3]


def test_texts_are_escaped_and_not_changed() -> None:
    labels = ["$x_1$", "<b>&", "日本 🎉", "#010203 url(#x)", "100 %", 'id="a"']
    assert texts(charts.bars("<i>&$x$", labels, [1] * 6))[-6:] == labels


def test_long_labels_are_cut() -> None:
    (label,) = texts(charts.bars("Long", ["x" * 200], [1]))[-1:]
    assert len(label) < 30
    assert label.endswith("…")


def test_a_heat_map_of_many_long_names_is_wide_enough_for_its_numbers() -> None:
    names = [f"column number {number} of a table with long names" for number in range(20)]
    svg = charts.heat_map("Many", names, names, [[0.5] * 20] * 20)
    assert texts(svg).count("0.50") == 400
    width = re.search(r'viewBox="0 0 (\d+)', svg)
    assert width is not None
    assert int(width[1]) >= 20 * 32 + 7 * 22


def test_a_bar_beyond_the_axis_shows_its_value() -> None:
    svg = charts.bars("Cut", ["a", "b"], [0.02, 0.154], most=0.05, scale="percent")
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
    assert tick(value, scale) == shown
