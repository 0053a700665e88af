"""Figures of columns and of their relation to the label, by published formulas.

Unless a docstring gives another shape, arrays are (n,): one value per loan. A figure that is not
defined, such as the skewness of a constant, is None and never NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.intervals import wilson

_Z95_ONE_SIDED = 1.6448536269514722


@dataclass(frozen=True)
class Rate:
    """The late rate of loans; `low` and `high` are the ends of its 95 % interval."""

    loans: int
    late: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, late: int, loans: int) -> Rate:
        """The rate of late loans among at least one loan, with Wilson's interval."""
        return cls(loans, late, late / loans, *wilson(late, loans))


def skewness(values: Numbers) -> float | None:
    """The adjusted Fisher–Pearson skewness: G1 = g1·√(n(n−1))/(n−2), as in spreadsheets.

    0 for a symmetric column, above 0 if the long tail is at the high end; None for fewer than three
    values or a constant. D. N. Joanes and C. A. Gill (1998), Comparing measures of sample skewness
    and kurtosis, The Statistician 47.
    """
    n = len(values)
    if n < 3 or values.min() == values.max():
        return None
    # Scaling does not change the skewness. Without it, the cube of a large number would overflow.
    scaled = values / np.abs(values).max()
    deviations = scaled - scaled.mean()
    g1 = float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5)
    return g1 * math.sqrt(n * (n - 1)) / (n - 2)


def information_value(late: npt.ArrayLike, on_time: npt.ArrayLike) -> float | None:
    """The information value of a binned feature, from each bin's late and on-time loans (bins,).

    The sum over bins of (gᵢ − bᵢ)·ln(gᵢ/bᵢ), where gᵢ and bᵢ are the bin's shares of all on-time
    and of all late loans. N. Siddiqi (2006), Credit Risk Scorecards, chapter 6. A bin without late
    loans, or without on-time ones, has half a loan added to both counts, because the logarithm of 0
    is infinite. None if all loans have the same outcome.
    """
    bad, good = np.asarray(late, dtype=np.float64), np.asarray(on_time, dtype=np.float64)
    if not bad.sum() or not good.sum():
        return None
    empty = (bad == 0) | (good == 0)
    g = np.where(empty, good + 0.5, good) / good.sum()
    b = np.where(empty, bad + 0.5, bad) / bad.sum()
    return float(np.sum((g - b) * np.log(g / b)))


def information_by_chance(bins: int, late: int, on_time: int) -> float:
    """The 95 % quantile of the information value of a feature that is unrelated to the label.

    Without any relation, IV / (1/late + 1/on_time) is nearly χ² with bins − 1 degrees of freedom.
    Its quantile is that of the normal approximation. B. Yurdakul (2018), Statistical Properties of
    Population Stability Index, gives this distribution for the PSI, which has the same formula.
    """
    freedom = bins - 1
    return (freedom + _Z95_ONE_SIDED * math.sqrt(2 * freedom)) * (1 / late + 1 / on_time)


def ranks(values: Numbers) -> Numbers:
    """Ranks from 1; equal values have their mean rank, and NaN stays NaN."""
    present = ~np.isnan(values)
    result = np.full(len(values), np.nan)
    _, places, counts = np.unique(values[present], return_inverse=True, return_counts=True)
    result[present] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return result


def rank_correlations(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Spearman's rank correlation of every two columns, over the loans that have both values.

    `columns` is (features, loans), NaN where a value is missing. The result is (features,
    features), NaN where a column does not vary. Ranks are those within all values of a column,
    including loans whose other value is missing. C. Spearman (1904), The proof and measurement of
    association between two things.
    """
    ranked = np.array([ranks(column) for column in columns])
    present = ~np.isnan(ranked)
    # Ranks are centred at 0 and scaled to 1, so that sums over millions of loans lose no digits.
    middle = (present.sum(axis=1, keepdims=True) + 1) / 2
    x = np.where(present, ranked - middle, 0.0) / max(len(columns[0]), 1)
    g = present.astype(np.float64)
    n, sums, squares = g @ g.T, x @ g.T, (x * x) @ g.T
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = x @ x.T - sums * sums.T / n
        variance = squares - sums**2 / n
        # Such a small variance is a rounding error: the column is constant.
        variance[variance < 1e-9 * np.maximum(n, 1)] = np.nan
        correlation = covariance / np.sqrt(variance * variance.T)
    clipped: npt.NDArray[np.float64] = np.clip(correlation, -1, 1)
    return clipped


def cramers_v(first: Codes, second: Codes) -> float | None:
    """Cramér's V of two columns of codes from 0: 0 if they are independent, at most 1.

    Corrected for bias: otherwise many rare levels would look related. None if a column does not
    vary. W. Bergsma (2013), A bias-correction for Cramér's V and Tschuprow's T, Journal of the
    Korean Statistical Society 42.
    """
    n = len(first)
    height, width = int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1
    table = np.bincount(first * width + second, minlength=height * width).astype(np.float64)
    table = table.reshape(height, width)
    table = table[table.any(axis=1)][:, table.any(axis=0)]
    rows, columns = table.shape
    if n < 2 or min(rows, columns) < 2:
        return None
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = float(((table - expected) ** 2 / expected).sum()) / n
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    rows_left = rows - (rows - 1) ** 2 / (n - 1)
    columns_left = columns - (columns - 1) ** 2 / (n - 1)
    most = min(rows_left, columns_left) - 1
    return min(1.0, math.sqrt(phi2 / most)) if most > 0 else None
