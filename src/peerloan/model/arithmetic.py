"""The arithmetic that makes one loan, a million, and a replay years later agree to the last bit.

Contributions and margins (log-odds) are multiples of 2⁻³². Sums of such numbers are exact in
doubles, in any order and any engine, as long as they stay below 2²⁰. Decisions compare margins;
the probability is only shown, so it is rounded to nine decimals: implementations of exp differ in
the last bit.
"""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec
import numpy as np

from peerloan.stats.arrays import Numbers

# Named in every manifest: other rules would be another number, beside this one.
ARITHMETIC = 1
UNIT = 2.0**-32
# A margin beyond this is no probability that a double could tell from 0 or 1.
MAX_MARGIN = 500.0


class Calibration(msgspec.Struct, frozen=True):
    """calibrated margin = slope · margin + intercept, with a positive slope."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, margins: Numbers) -> Numbers:
        """Calibrated margins (n,)."""
        return self.slope * margins + self.intercept


IDENTITY = Calibration()
_FloatOrArray = TypeVar("_FloatOrArray", float, Numbers)


def to_unit(value: _FloatOrArray) -> _FloatOrArray:
    """Round to the nearest multiple of 2⁻³²; never to −0, which prints as another number."""
    return np.rint(value / UNIT) * UNIT + 0.0  # type: ignore[no-any-return]


def probability(margin: float) -> float:
    """The probability of a margin: its logistic, rounded to nine decimals."""
    # Python's round to a whole number is rint: half goes to even.
    return round(1e9 / (1.0 + math.exp(-margin))) / 1e9


def probabilities(margins: Numbers) -> Numbers:
    """The probabilities of many margins; equal to `probability` of each."""
    billionths = 1e9 / (1.0 + np.exp(-margins))
    found = np.rint(billionths) / 1e9
    # Next to a half, the last bit of exp decides to which side it rounds: two rows in a million.
    for i in np.flatnonzero(np.abs(billionths - np.floor(billionths) - 0.5) < 1e-6).tolist():
        found[i] = probability(float(margins[i]))
    return found


def margin(probability: float) -> float:
    """The margin of a probability strictly between 0 and 1, as a multiple of 2⁻³²."""
    return float(to_unit(math.log(probability / (1.0 - probability))))
