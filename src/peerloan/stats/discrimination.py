"""Discrimination: how well a score ranks late loans above loans on time (AUC, KS, precision).

Some functions take counts of loans per distinct score, lowest score first (groups,). So ties are
handled exactly, and millions of loans take no more memory than their distinct scores.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.intervals import bisect

# With fewer late loans, or fewer loans on time, no figure of their ranking is reported.
MIN_LOANS_PER_OUTCOME = 5
FOLDS = 5
# A level's late rate is smoothed with so many loans of the average rate.
_PRIOR_LOANS = 20
# With a tilt of this size all weight is at one end of the scale.
_MAX_TILT = 10_000.0
# Ranks of a window's loans are rounded to so many steps between 0 and 1.
_RANK_STEPS = 1_000


class ScoreCounts(NamedTuple):
    """Late loans and loans on time (groups,) for each distinct score, lowest score first."""

    late: Codes
    on_time: Codes

    @classmethod
    def of(cls, scores: Numbers, late: Numbers | Codes) -> ScoreCounts:
        """Count loans by score; `scores` and `late` (1 or 0) are (n,)."""
        distinct, group = np.unique(scores, return_inverse=True)
        late_mask = late == 1
        size = len(distinct)
        return cls(
            np.bincount(group[late_mask], minlength=size),
            np.bincount(group[~late_mask], minlength=size),
        )


def auc_of_counts(late: npt.NDArray[Any], on_time: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The area under the ROC curve, from counts per score (…, groups); the result is (…,).

    It is the Mann–Whitney statistic: the share of pairs of a late loan and a loan on time in which
    the late loan's score is higher; a tie counts half. Integer counts give an exact sum. NaN where
    all loans have the same outcome.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = late.sum(axis=-1) * on_time.sum(axis=-1)
        areas: npt.NDArray[np.float64] = np.sum(late * _below(on_time), axis=-1) / pairs
    return areas


def auc(values: Numbers, late: Numbers | Codes) -> float | None:
    """The area under the ROC curve of loans (n,); None if all have the same outcome.

    It is below 0.5 if low values are riskier. Loans whose value is NaN are left out.
    """
    present = ~np.isnan(values)
    area = float(auc_of_counts(*ScoreCounts.of(values[present], late[present])))
    return None if math.isnan(area) else area


def level_auc(codes: Codes, late: Codes, fold: Codes | None = None) -> float | None:
    """The AUC of unordered levels `codes` (n,), ranked by their late rates; cross-validated.

    The loans of a fold are ranked by the late rates of the other folds' loans: ranked by their own
    outcomes, even meaningless levels would look good. The result is the mean over the folds with
    both outcomes, None if there are none. `fold` (n,) is each loan's fold from 0 to 4, by default
    in turn.
    """
    fold = np.arange(len(codes)) % FOLDS if fold is None else fold
    size = int(codes.max(initial=0)) + 1
    areas = []
    for number in range(FOLDS):
        rest = fold != number
        if not rest.any():
            continue
        loans = np.bincount(codes[rest], minlength=size)
        n_late = np.bincount(codes[rest], weights=late[rest], minlength=size)
        rates = (n_late + _PRIOR_LOANS * late[rest].mean()) / (loans + _PRIOR_LOANS)
        area = auc(rates[codes[~rest]], late[~rest])
        if area is not None:
            areas.append(area)
    return float(np.mean(areas)) if areas else None


def ks_gaps(late: npt.NDArray[Any], on_time: npt.NDArray[Any]) -> Numbers:
    """The distance between the score distributions of both outcomes, at each score (groups,).

    It is the share of loans on time up to this score minus the share of late loans up to it. The
    Kolmogorov–Smirnov statistic is the largest of these. Where it is negative, late loans have
    lower scores.
    """
    gaps: Numbers = np.cumsum(on_time) / on_time.sum() - np.cumsum(late) / late.sum()
    return gaps


def average_precision(late: Codes, on_time: Codes) -> float:
    """The average precision: the mean over thresholds, weighted by the recall that each adds."""
    flagged_late = np.cumsum(late[::-1])
    flagged = np.cumsum((late + on_time)[::-1])
    return float(np.sum(late[::-1] * (flagged_late / flagged)) / flagged_late[-1])


def auc_interval(late: Numbers, area: float) -> tuple[float, float]:
    """The 95 % interval of the AUC `area` of loans with the outcomes `late` (n,), 1 or 0.

    By J. A. Hanley and B. J. McNeil (1982), Radiology 143, 29–36. At 0 and 1 their variance is 0
    however few loans there are. So for an AUC near these (by less than half a loan of the rarer
    outcome), the ends are the AUCs from which `area` is 1.96 standard deviations away, with the
    deviation of that end (R. G. Newcombe 2006, Statistics in Medicine 25, 559–573).
    """
    n_late = float(late.sum())
    n_on_time = len(late) - n_late

    def half_width(auc: float) -> float:
        return 1.96 * math.sqrt(_auc_variance(auc, n_late, n_on_time))

    if min(area, 1 - area) * min(n_late, n_on_time) < 0.5:
        low = bisect(area, 0.0, lambda end: area - end < half_width(end))
        return low, bisect(area, 1.0, lambda end: end - area < half_width(end))
    return max(0.0, area - half_width(area)), min(1.0, area + half_width(area))


def _auc_variance(area: float, late: float, on_time: float) -> float:
    """Hanley and McNeil's variance of an AUC of so many late loans and loans on time."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (late - 1) * (q1 - area**2) + (on_time - 1) * (q2 - area**2)
    ) / (late * on_time)
    return max(variance, 0.0)


def window_auc_interval(
    area: float, expected: Numbers, loans: Codes, late: Codes, significance: float
) -> tuple[float, float]:
    """The interval of the AUC `area` of a window's loans.

    It does not contain the true AUC in this share of windows (`significance`). Loans are in groups
    of equal margins, in rising order (groups,): `expected` is how many late loans the version's
    probabilities predict, `loans` counts all loans and `late` the late ones.

    An AUC is the mean rank (0 to 1) of the loans of the rarer outcome among those of the other one.
    The probabilities predict the distribution of these ranks. Tilting it exponentially gives
    distributions with other means; the interval contains the means from which the observed AUC does
    not differ significantly by the likelihood ratio (S. S. Wilks 1938). So the interval is skewed
    as the ranks are, and stays within 0 and 1. The interval of Hanley and McNeil shrinks to nothing
    at these ends.
    """
    on_time, n_late = loans - expected, int(late.sum())
    n_on_time = int(loans.sum()) - n_late
    if n_late <= n_on_time:
        ranks, weights, rarer = _share_below(on_time), expected, late
    else:
        ranks, weights, rarer = 1 - _share_below(expected), on_time, loans - late
    # The AUC among the observed loans of the other outcome, and among the predicted ones. They
    # differ if few loans are at an end of the scale; the interval starts from both.
    areas = sorted((area, float(rarer @ ranks) / int(rarer.sum())))
    ranks, weights = _merge_close(ranks, weights / weights.sum())
    lowest, highest = float(ranks.min()), float(ranks.max())
    if lowest == highest:
        return 0.0, 1.0
    family = _TiltedRanks(ranks, np.log(weights))
    # The number of loans of one outcome alone that would give the variance of both (H. B. Mann and
    # D. R. Whitney 1947).
    effective_loans = n_late * n_on_time / (n_late + n_on_time + 1)
    divergence = NormalDist().inv_cdf(1 - significance / 2) ** 2 / (2 * effective_loans)
    low, high = (
        family.interval_end(min(max(mean, lowest), highest), divergence, sign)
        for mean, sign in zip(areas, (-1, 1), strict=True)
    )
    return min(area, low), max(area, high)


class _TiltedRanks:
    """A family of distributions of ranks: the base probabilities times exp(tilt · rank)."""

    def __init__(self, ranks: Numbers, log_weights: Numbers) -> None:
        self._ranks, self._log_weights = ranks, log_weights

    def _moments(self, tilt: float) -> tuple[float, float]:
        """The logarithm of the normalising constant, and the mean rank."""
        logs = self._log_weights + tilt * self._ranks
        largest = float(logs.max())
        weights = np.exp(logs - largest)
        total = float(weights.sum())
        return largest + float(np.log(total)), float(weights @ self._ranks) / total

    def interval_end(self, mean: float, divergence: float, sign: int) -> float:
        """The mean above (`sign` 1) or below (−1) `mean` at this Kullback–Leibler divergence."""
        start = bisect(-_MAX_TILT, _MAX_TILT, lambda tilt: self._moments(tilt)[1] < mean)
        log_sum, mean = self._moments(start)

        def is_within(tilt: float) -> bool:
            return (start - tilt) * mean - log_sum + self._moments(tilt)[0] < divergence

        if sign > 0:
            return self._moments(bisect(start, _MAX_TILT, is_within))[1]
        return self._moments(bisect(start, -_MAX_TILT, is_within))[1]


def _merge_close(ranks: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Merge ranks that are close together, since a book may have millions; adds their weights."""
    step = (ranks * _RANK_STEPS).astype(np.int64)
    total = np.bincount(step, weights).astype(np.float64)
    is_used = total > 0
    means: Numbers = np.bincount(step, weights * ranks)[is_used] / total[is_used]
    return means, total[is_used]


def _below(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """For each group, the loans in lower groups plus half of its loans (…, groups)."""
    below: npt.NDArray[np.float64] = np.cumsum(counts, axis=-1) - counts / 2
    return below


def _share_below(counts: npt.NDArray[Any]) -> Numbers:
    """As `_below`, as a share of all loans (groups,)."""
    below: Numbers = _below(counts) / counts.sum()
    return below
