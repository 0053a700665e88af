"""Bit-exact arithmetic: a loan gets the same result alone, in a batch, and in a later replay.

Contributions and margins (log-odds) are multiples of 2⁻³². Sums of such numbers are exact in
double precision, in any order, as long as they stay below 2²⁰. Decisions compare margins. The
probability is for display only. It is rounded to nine decimals, because implementations of exp
differ in the last bit.
"""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec
import numpy as np

from peerloan.stats.arrays import Numbers

# Version of this arithmetic, stored in every manifest. Any change gets a new number.
ARITHMETIC = 1
UNIT = 2.0**-32
# Largest margin of a scorecard. Far smaller margins already have a probability of 0 or 1.
MAX_MARGIN = 500.0


class PlattCalibration(msgspec.Struct, frozen=True):
    """Platt calibration: calibrated margin = slope · margin + intercept, with slope > 0."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, margins: Numbers) -> Numbers:
        """Calibrated margins (n,)."""
        return self.slope * margins + self.intercept


IDENTITY = PlattCalibration()
_FloatOrArray = TypeVar("_FloatOrArray", float, Numbers)


def to_unit(value: _FloatOrArray) -> _FloatOrArray:
    """Round to the nearest multiple of 2⁻³². −0 becomes 0, because the two print differently."""
    return np.rint(value / UNIT) * UNIT + 0.0  # type: ignore[no-any-return]


def probability(margin: float) -> float:
    """Return the probability of a margin: its logistic function, rounded to nine decimals."""
    # Python's round and numpy's rint both round half to even.
    return round(1e9 / (1.0 + math.exp(-margin))) / 1e9


def probabilities(margins: Numbers) -> Numbers:
    """Return the probabilities (n,) of margins (n,), each bit for bit equal to `probability`."""
    billionths = 1e9 / (1.0 + np.exp(-margins))
    rounded = np.rint(billionths) / 1e9
    # Close to a half, the last bit of exp decides the rounding. numpy may differ from Python there,
    # so these values (about two in a million) are computed again by `probability`.
    for i in np.flatnonzero(np.abs(billionths - np.floor(billionths) - 0.5) < 1e-6).tolist():
        rounded[i] = probability(float(margins[i]))
    return rounded


def margin(probability: float) -> float:
    """Return the margin of a probability (0 < p < 1): its logit, as a multiple of 2⁻³²."""
    return float(to_unit(math.log(probability / (1.0 - probability))))
