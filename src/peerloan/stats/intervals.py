"""Intervals of figures, by published formulas; of 95 % unless another is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

Z95 = 1.959963984540054
"""The normal quantile of two-sided 95 % intervals."""
_HALVINGS, _TERMS = 50, 10_000


def wilson(count: int, whole: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    It stays within 0 and 1 and holds for small shares, where the usual p ± z·se does neither.
    E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference,
    Journal of the American Statistical Association 22, 209–212.
    """
    share = count / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole)
    half *= math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    # At the ends rounding would leave 1e-18 beside 0.
    low = 0.0 if count == 0 else middle - half
    return low, 1.0 if count == whole else middle + half


def poisson(count: int, z: float = Z95) -> tuple[float, float]:
    """The interval of the number of events that is expected, where so many came.

    Byar's approximation of the exact one, right to a hundredth also for few: N. E. Breslow and
    N. E. Day (1987), Statistical Methods in Cancer Research II, section 2.3.
    """
    low = count * (1 - 1 / (9 * count) - z / (3 * math.sqrt(count))) ** 3 if count else 0.0
    more = count + 1
    return max(0.0, low), more * (1 - 1 / (9 * more) + z / (3 * math.sqrt(more))) ** 3


def exact_share(count: int, whole: int, wrong: float = 0.05) -> tuple[float, float]:
    """The exact interval of a share, which does not hold in at most this share of samples, however
    few they are or near 0 or 1 it is.

    C. J. Clopper and E. S. Pearson (1934), The use of confidence or fiducial limits illustrated in
    the case of the binomial, Biometrika 26, 404–413.
    """
    low = _share_at(count, whole, wrong / 2) if count else 0.0
    return low, 1 - _share_at(whole - count, whole, wrong / 2) if count < whole else 1.0


def _share_at(count: int, whole: int, chance: float) -> float:
    """The share by which so many or more come with this chance."""
    return halved(0.0, count / whole, lambda x: _beta(x, count, whole - count + 1) < chance)


def halved(near: float, far: float, goes_on: Callable[[float], bool]) -> float:
    """Where, between the two, a condition that holds at the near end no longer does."""
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if goes_on(middle):
            near = middle
        else:
            far = middle
    return near


def _beta(x: float, a: float, b: float) -> float:
    """The distribution function of the beta distribution, by its continued fraction (NIST Digital
    Library of Mathematical Functions, 8.17.22).
    """
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(front + a * math.log(x) + b * math.log1p(-x)) / a
    # By Lentz's method: W. H. Press et al. (2007), Numerical Recipes, section 6.4.
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = _away(1 + term / c), 1 / _away(1 + term * d)
            fraction *= c * d
        if abs(c * d - 1) < 1e-13:
            break
    return front * fraction


def _away(value: float) -> float:
    """A divisor that is not 0."""
    return value if abs(value) > 1e-300 else 1e-300
