"""How well a score ranks late loans above the others: AUC with its intervals, KS, precision.

Figures of counts take loans in groups of one score, lowest score first. Then ties count half, and
a book of millions is as small as its number of different scores.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.intervals import halved

# With fewer late loans, or fewer on time, no figure of their ranking is given.
LEAST_OF_A_KIND = 5
FOLDS = 5
# How many loans of the average rate a level's own rate is mixed with.
_PRIOR = 20
# So steep a tilt leaves nothing but the end of the scale.
_STEEPEST = 10_000.0
# Of the scale of places.
_CELLS = 1_000


class ScoreCounts(NamedTuple):
    """Late loans and loans on time (groups,) of each different score, lowest first."""

    late: Codes
    on_time: Codes

    @classmethod
    def of(cls, scores: Numbers, late: Numbers | Codes) -> ScoreCounts:
        """The counts of single loans (n,); `late` is 1 or 0 for each."""
        different, place = np.unique(scores, return_inverse=True)
        bad = late == 1
        size = len(different)
        return cls(
            np.bincount(place[bad], minlength=size),
            np.bincount(place[~bad], minlength=size),
        )


def auc_of_counts(late: npt.NDArray[Any], on_time: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The area under the ROC curve of each set of outcomes (…, groups).

    It is the Mann–Whitney statistic: how often a late loan's score is above that of a loan on time,
    a tie counting half. Whole counts give an exact sum. NaN where a set has one kind alone.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = late.sum(axis=-1) * on_time.sum(axis=-1)
        areas: npt.NDArray[np.float64] = np.sum(late * _below(on_time), axis=-1) / pairs
    return areas


def auc(values: Numbers, late: Numbers | Codes) -> float | None:
    """The area under the ROC curve of single loans (n,); None if they are of one kind alone.

    Below 0.5 where low values are the risky ones. Loans whose value is NaN are left out.
    """
    present = ~np.isnan(values)
    area = float(auc_of_counts(*ScoreCounts.of(values[present], late[present])))
    return None if math.isnan(area) else area


def level_auc(codes: Codes, late: Codes, fold: Codes | None = None) -> float | None:
    """The AUC of levels, which have no order of their own, ranked by their late rates.

    In folds (n,), by default five, each fold's loans by the rates of the others: ranked by their
    own outcomes even levels without meaning would look good. The mean over folds that have both
    kinds of loans.
    """
    fold = np.arange(len(codes)) % FOLDS if fold is None else fold
    size = int(codes.max(initial=0)) + 1
    areas = []
    for number in range(FOLDS):
        rest = fold != number
        if not rest.any():
            continue
        loans = np.bincount(codes[rest], minlength=size)
        bad = np.bincount(codes[rest], weights=late[rest], minlength=size)
        rates = (bad + _PRIOR * late[rest].mean()) / (loans + _PRIOR)
        area = auc(rates[codes[~rest]], late[~rest])
        if area is not None:
            areas.append(area)
    return float(np.mean(areas)) if areas else None


def ks_gaps(late: npt.NDArray[Any], on_time: npt.NDArray[Any]) -> Numbers:
    """The distance of the two distributions of scores at each group (groups,).

    It is the share of the loans on time up to this score less that of the late loans. The
    Kolmogorov–Smirnov figure is the largest; below 0 late loans have the lower scores.
    """
    gaps: Numbers = np.cumsum(on_time) / on_time.sum() - np.cumsum(late) / late.sum()
    return gaps


def average_precision(late: Codes, on_time: Codes) -> float:
    """The mean precision over thresholds, weighted by the recall that each adds."""
    found = np.cumsum(late[::-1])
    flagged = np.cumsum((late + on_time)[::-1])
    return float(np.sum(late[::-1] * (found / flagged)) / found[-1])


def auc_interval(late: Numbers, area: float) -> tuple[float, float]:
    """A 95 % interval of the AUC of loans with these outcomes (n,).

    J. A. Hanley and B. J. McNeil (1982), Radiology 143, 29–36. At 0 and 1 their variance is 0,
    whatever the loans. So near these (less than half a loan of the rarer kind away), the ends are
    where an area would have the given one 1.96 of its own deviations away (R. G. Newcombe 2006,
    Statistics in Medicine 25, 559–573).
    """
    n_late = float(late.sum())
    n_on_time = len(late) - n_late

    def reach(other: float) -> float:
        return 1.96 * math.sqrt(_auc_variance(other, n_late, n_on_time))

    if min(area, 1 - area) * min(n_late, n_on_time) < 0.5:
        low = halved(area, 0.0, lambda other: area - other < reach(other))
        return low, halved(area, 1.0, lambda other: other - area < reach(other))
    return max(0.0, area - reach(area)), min(1.0, area + reach(area))


def _auc_variance(area: float, late: float, on_time: float) -> float:
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (late - 1) * (q1 - area**2) + (on_time - 1) * (q2 - area**2)
    ) / (late * on_time)
    return max(variance, 0.0)


def window_auc_interval(
    area: float, expected: Numbers, loans: Codes, late: Codes, wrong: float
) -> tuple[float, float]:
    """An interval of a window's AUC that does not hold in this share of windows.

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
        places, weights, rarer = _share_below(on_time), expected, late
    else:
        places, weights, rarer = 1 - _share_below(expected), on_time, loans - late
    # Among the others as they came, and as they were expected: few loans at an end of the scale
    # push one another off it.
    areas = sorted((area, float(rarer @ places) / int(rarer.sum())))
    places, weights = _near(places, weights / weights.sum())
    lowest, highest = float(places.min()), float(places.max())
    if lowest == highest:
        return 0.0, 1.0
    family = _Tilted(places, np.log(weights))
    # As many loans of one kind alone as say as much as both do (H. B. Mann and D. R. Whitney 1947).
    size = n_late * n_on_time / (n_late + n_on_time + 1)
    reach = NormalDist().inv_cdf(1 - wrong / 2) ** 2 / (2 * size)
    low, high = (
        family.end(min(max(mean, lowest), highest), reach, sign)
        for mean, sign in zip(areas, (-1, 1), strict=True)
    )
    return min(area, low), max(area, high)


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


def _below(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How many of these loans (…, groups) are below each group, those in it counting half."""
    below: npt.NDArray[np.float64] = np.cumsum(counts, axis=-1) - counts / 2
    return below


def _share_below(counts: npt.NDArray[Any]) -> Numbers:
    below: Numbers = _below(counts) / counts.sum()
    return below
