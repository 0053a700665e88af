"""How sure the ranking of a window is: an interval of its AUC that holds near 0 and 1 too."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.intervals import halved

# With fewer loans of a kind nothing is said of how they are ranked.
LEAST = 5
# So steep a tilt leaves nothing but the end of the scale.
_STEEPEST = 10_000.0
# Of the scale of places.
_CELLS = 1_000


def auc_interval(
    auc: float, expected: Numbers, loans: Codes, late: Codes, wrong: float
) -> tuple[float, float]:
    """An interval of the area under the ROC curve that does not hold in this share of windows.

    Loans come in groups of one margin, rising (groups,): how many, how many late ones of them the
    version's own probabilities expect, and how many there are. An AUC is the mean, over the loans
    of the rarer kind, of their places among the other kind. The probabilities say how these places
    are distributed; the interval holds the means of all exponentially tilted distributions from
    which the realised AUC is within the reach of chance, by the likelihood ratio (S. S. Wilks
    1938). So it is skewed as the places are, and ends within 0 and 1, where that of Hanley and
    McNeil shrinks to nothing.
    """
    on_time, n_late = loans - expected, int(late.sum())
    n_on_time = int(loans.sum()) - n_late
    if n_late <= n_on_time:
        places, weights, rarer = _below(on_time), expected, late
    else:
        places, weights, rarer = 1 - _below(expected), on_time, loans - late
    # Among the others as they came, and as they were expected: few loans at an end of the scale
    # push one another off it.
    areas = sorted((auc, float(rarer @ places) / int(rarer.sum())))
    places, weights = _near(places, weights / weights.sum())
    lowest, highest = float(places.min()), float(places.max())
    if lowest == highest:
        return 0.0, 1.0
    family = _Tilted(places, np.log(weights))
    # As many loans of one kind alone as say as much as both do (H. B. Mann and D. R. Whitney 1947).
    size = n_late * n_on_time / (n_late + n_on_time + 1)
    reach = NormalDist().inv_cdf(1 - wrong / 2) ** 2 / (2 * size)
    low, high = (
        family.end(min(max(area, lowest), highest), reach, sign)
        for area, sign in zip(areas, (-1, 1), strict=True)
    )
    return min(auc, low), max(auc, high)


class _Tilted:
    """Places with their probabilities, times exp(tilt · place)."""

    def __init__(self, places: Numbers, logs: Numbers) -> None:
        self._places, self._logs = places, logs

    def _moments(self, tilt: float) -> tuple[float, float]:
        """The logarithm of the sum that makes probabilities of them, and the mean place."""
        logs = self._logs + tilt * self._places
        largest = float(logs.max())
        weights = np.exp(logs - largest)
        total = float(weights.sum())
        return largest + float(np.log(total)), float(weights @ self._places) / total

    def end(self, mean: float, reach: float, sign: int) -> float:
        """The mean above or below this one from which it is so far away in information."""
        at = halved(-_STEEPEST, _STEEPEST, lambda tilt: self._moments(tilt)[1] < mean)
        log_sum, mean = self._moments(at)

        def is_within(tilt: float) -> bool:
            return (at - tilt) * mean - log_sum + self._moments(tilt)[0] < reach

        if sign > 0:
            return self._moments(halved(at, _STEEPEST, is_within))[1]
        return self._moments(halved(at, -_STEEPEST, is_within))[1]


def _near(places: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Places with those near them taken together, and their weights: a book has millions."""
    cell = (places * _CELLS).astype(np.int64)
    total = np.bincount(cell, weights).astype(np.float64)
    held = total > 0
    means: Numbers = np.bincount(cell, weights * places)[held] / total[held]
    return means, total[held]


def _below(some: npt.NDArray[np.float64] | Codes) -> Numbers:
    """The share of loans (groups,) below each group, those in it counting half."""
    below: Numbers = (np.cumsum(some) - some / 2) / some.sum()
    return below
