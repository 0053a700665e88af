"""A scorecard as points: whole numbers that people can add up, on two printed pages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import msgspec

from peerloan.formatting import format_exact
from peerloan.loan import Definition, Field
from peerloan.model import LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.arithmetic import probability

# A score of 600 at odds of 50 on-time loans per late one, and 20 points more for each doubling of
# the odds: the scaling of Siddiqi (2006), Credit Risk Scorecards, chapter 6.
SCORE, ODDS, TO_DOUBLE = 600, 50, 20
_FACTOR = TO_DOUBLE / math.log(2)
_OFFSET = SCORE - _FACTOR * math.log(ODDS)
# Two printed pages in three columns have this many lines; a field's heading takes four.
_PRINTED, _HEADING = 270, 4
_MOST_LINES, _MOST_NAMES = 10, 6


class ScoreLine(msgspec.Struct, frozen=True):
    """A line of a scorecard: its values, and the lowest and highest log-odds among them.

    `steps` is the number of exact lines that it was merged from.
    """

    values: str
    low: float
    high: float
    steps: int = 1

    @property
    def odds(self) -> float:
        """The factor by which the average loan's odds of being late are multiplied."""
        return math.exp((self.low + self.high) / 2)

    @property
    def points(self) -> int:
        """The line's whole score points; higher is safer."""
        return round(-_FACTOR * (self.low + self.high) / 2)


class PointsTable(msgspec.Struct, frozen=True):
    """A field's lines, and the number of exact lines (`steps`) that they were merged from."""

    label: str
    unit: str
    lines: tuple[ScoreLine, ...]
    steps: int


class Points(msgspec.Struct, frozen=True):
    """A scorecard as whole points for people.

    A loan's score is `start` plus its points in each table; it differs from the exact score by at
    most `off` points. A score at or below `threshold` is flagged. `bands` are the upper ends of
    medium, high and very high. `scale` pairs scores with probabilities.
    """

    start: int
    tables: tuple[PointsTable, ...]
    off: float
    threshold: float
    bands: tuple[float, ...]
    scale: tuple[tuple[int, float], ...]


def score(margin: float) -> float:
    """Return the score of a margin: 600 at odds of 50:1, 20 points more for each doubling."""
    return _OFFSET - _FACTOR * margin


def as_points(scorecard: Scorecard, definition: Definition, policy: Policy) -> Points:
    """Convert a scorecard to few lines, so that ten or twelve fields fit on two printed pages.

    Neighbouring steps of a number, and levels with similar points, are merged with the smallest
    possible deviation from the exact steps. The points are for reading: decisions use the exact
    tables.
    """
    room = _PRINTED // max(1, len(definition.fields)) - _HEADING
    most = max(3, min(_MOST_LINES, room))
    tables, off = [], abs(score(scorecard.base) - round(score(scorecard.base)))
    for field, table in zip(definition.fields, scorecard.tables, strict=True):
        exact = exact_lines(field, table)
        lines = _merged(field, table, most)
        off += max(
            abs(end * _FACTOR + line.points) for line in lines for end in (line.low, line.high)
        )
        tables.append(PointsTable(field.label, field.unit, lines, len(exact)))
    scores = _scale(scorecard, policy)
    return Points(
        round(score(scorecard.base)),
        tuple(tables),
        off,
        score(policy.threshold_margin),
        tuple(map(score, policy.band_margins)),
        tuple((value, probability((_OFFSET - value) / _FACTOR)) for value in scores),
    )


def _scale(scorecard: Scorecard, policy: Policy) -> range:
    """Return about ten scores from the riskiest to the safest possible loan, bands included."""
    low, high = (
        TO_DOUBLE * round(score(scorecard.base + sum(map(pick, points))) / TO_DOUBLE)
        for points in [[table.points or (0.0,) for table in scorecard.tables]]
        for pick in (max, min)
    )
    low = min(low, TO_DOUBLE * math.floor(score(policy.band_margins[-1]) / TO_DOUBLE))
    step = TO_DOUBLE * max(1, math.ceil((high - low) / (10 * TO_DOUBLE)))
    return range(low, high + 1, step)


def exact_lines(field: Field, table: NumberTable | LevelTable) -> tuple[ScoreLine, ...]:
    """List all steps or levels of a table, and unseen and missing values if the field has them."""
    return _lines(field, table, lambda points: [[place] for place in range(len(points))])


_Grouping = Callable[[Sequence[float]], list[list[int]]]


def _merged(field: Field, table: NumberTable | LevelTable, most: int) -> tuple[ScoreLine, ...]:
    """Merge a table's steps or levels to at most `most` lines."""

    def group(points: Sequence[float]) -> list[list[int]]:
        # Bisect for the smallest span of a group (at least one point) with few enough groups.
        groups = _neighbours(points, 1 / _FACTOR)
        low, high = 1 / _FACTOR, max(points, default=0.0) - min(points, default=0.0)
        for _ in range(50 if len(groups) > most else 0):
            middle = (low + high) / 2
            groups = _neighbours(points, middle)
            low, high = (low, middle) if len(groups) <= most else (middle, high)
        return _joined(_neighbours(points, high) if len(groups) > most else groups, points)

    return _lines(field, table, group)


def _joined(groups: list[list[int]], points: Sequence[float]) -> list[list[int]]:
    """Merge neighbouring groups with the same whole points."""
    joined: list[list[int]] = []
    for group in groups:
        values = [points[place] for place in group]
        if joined:
            before = [points[place] for place in joined[-1]]
            if _whole_points(before) == _whole_points(values) == _whole_points([*before, *values]):
                joined[-1] += group
                continue
        joined.append(group)
    return joined


def _whole_points(log_odds: Sequence[float]) -> int:
    return ScoreLine("", min(log_odds), max(log_odds)).points


def _neighbours(points: Sequence[float], within: float) -> list[list[int]]:
    """Make the fewest groups of neighbours, none of which spans more than `within`."""
    groups: list[list[int]] = []
    low = high = 0.0
    for place, point in enumerate(points):
        low, high = min(low, point), max(high, point)
        if not groups or high - low > within:
            groups.append([])
            low = high = point
        groups[-1].append(place)
    return groups


def _lines(
    field: Field, table: NumberTable | LevelTable, group: _Grouping
) -> tuple[ScoreLine, ...]:
    lines = []
    if isinstance(table, NumberTable):
        points: Sequence[float] = table.points
        groups = group(points)
        texts = _ranges(field, [table.edges[places[0] - 1] for places in groups[1:]])
    else:
        point_of_level = dict(zip(table.levels, table.points, strict=True))
        ordered = field.kind == "ordered"
        levels = (
            field.levels
            if ordered
            else sorted(point_of_level, key=lambda level: (-point_of_level[level], level))
        )
        points = [point_of_level.get(level, table.unseen) for level in levels]
        groups = group(points)
        texts = [_names([levels[place] for place in places], ordered) for places in groups]
    for places, text in zip(groups, texts, strict=True):
        values = [points[place] for place in places]
        lines.append(ScoreLine(text, min(values), max(values), len(places)))
    if isinstance(table, LevelTable) and field.kind == "category":
        lines.append(ScoreLine("any other", table.unseen, table.unseen))
    if field.missing:
        lines.append(ScoreLine("not given", table.missing, table.missing))
    return tuple(lines)


def _names(levels: Sequence[str], ordered: bool) -> str:
    """Join the names of levels in one line."""
    if ordered and len(levels) > 1:
        return f"{levels[0]} – {levels[-1]}"
    rest = f" and {len(levels) - _MOST_NAMES} more" if len(levels) > _MOST_NAMES else ""
    return ", ".join(levels[:_MOST_NAMES]) + rest


def _ranges(field: Field, edges: Sequence[float]) -> list[str]:
    """Describe the ranges below the first edge, between edges, and from the last edge on."""
    if not edges:
        return ["any value"]
    ends = [math.ceil(edge) for edge in edges]
    if field.kind == "whole" and len(set(ends)) == len(ends):
        return [
            f"{ends[0] - 1:,}" if field.min == ends[0] - 1 else f"up to {ends[0] - 1:,}",
            *(
                f"{low:,}" if low + 1 == high else f"{low:,} to {high - 1:,}"
                for low, high in itertools.pairwise(ends)
            ),
            f"{ends[-1]:,} and more",
        ]
    values = [edge * 100 for edge in edges] if field.percent else edges
    texts = [_six_digits(value) for value in values]
    if len(set(texts)) < len(texts):
        texts = [format_exact(value) for value in values]
    sign = " %" if field.percent else ""
    return [
        f"below {texts[0]}{sign}",
        *(f"{low} to below {high}{sign}" for low, high in itertools.pairwise(texts)),
        f"{texts[-1]}{sign} and above",
    ]


def _six_digits(value: float) -> str:
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:,.6g}"
