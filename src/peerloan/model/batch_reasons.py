"""The reasons of many loans, each different one once: most of them are said of many loans."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from peerloan.loan import Loans, Value, distinct
from peerloan.model.policy import Reasons
from peerloan.stats.arrays import Codes, Numbers


class Cause(NamedTuple):
    """What a reason follows from: the field's position, its value, and what that contributes."""

    position: int
    value: Value
    points: float


class Said(NamedTuple):
    """The reasons of n loans: for each loan, where its own stand in `causes`, −1 for none (n, ≤ 4).

    No cause stands there twice; 0.0 and −0.0, which are written differently, are two.
    """

    places: Codes
    causes: list[Cause]


def said_of(loans: Loans, contributions: Numbers) -> Said:
    """The reasons of many loans (n), given their contributions (n, features)."""
    positions = Reasons.positions_many(contributions)
    largest = np.take_along_axis(contributions, np.maximum(positions, 0), axis=1)
    places = np.full(positions.shape, -1, dtype=np.int64)
    causes: list[Cause] = []
    for position, name in enumerate(loans.definition.names):
        here = np.nonzero(positions == position)
        by_value, values = distinct(loans.columns[name].take(here[0]))
        by_points, points = distinct(largest[here])
        pairs, where = np.unique(by_value * len(points) + by_points, return_inverse=True)
        places[here] = where + len(causes)
        for pair in pairs.tolist():
            value, contributed = values[pair // len(points)], points[pair % len(points)]
            causes.append(Cause(position, value, contributed))
    return Said(places, causes)
