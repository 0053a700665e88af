"""Confidence intervals, by published formulas; 95 % intervals by default.

An interval of significance 0.05 (a 95 % interval) does not contain the true value in at most 5 % of
samples. `z` is the normal quantile of such an interval: 1.96.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Z95 = 1.959963984540054
"""The normal quantile of two-sided 95 % intervals."""
_HALVINGS, _TERMS = 50, 10_000


def wilson(count: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of the share `count` / `total`.

    Unlike p ± z·se, it stays within 0 and 1 and is valid for small shares too. E. B. Wilson (1927),
    Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22, 209–212.
    """
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total)
    half *= math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # Exactly 0 and 1 at the ends, where rounding would give 1e-18 for 0.
    low = 0.0 if count == 0 else middle - half
    return low, 1.0 if count == total else middle + half


def poisson(count: int, z: float = Z95) -> tuple[float, float]:
    """The interval of the mean of a Poisson distribution of which `count` events were observed.

    Byar's approximation of the exact interval, accurate to a hundredth for small counts too.
    N. E. Breslow and N. E. Day (1987), Statistical Methods in Cancer Research II, section 2.3.
    """
    low = count * (1 - 1 / (9 * count) - z / (3 * math.sqrt(count))) ** 3 if count else 0.0
    more = count + 1
    return max(0.0, low), more * (1 - 1 / (9 * more) + z / (3 * math.sqrt(more))) ** 3


def exact_share(count: int, total: int, significance: float = 0.05) -> tuple[float, float]:
    """The exact interval of the share `count` / `total`.

    It is valid for any sample size and for shares near 0 or 1. C. J. Clopper and E. S. Pearson
    (1934), The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26, 404–413.
    """
    low = _share_at(count, total, significance / 2) if count else 0.0
    high = 1 - _share_at(total - count, total, significance / 2) if count < total else 1.0
    return low, high


def _share_at(count: int, total: int, probability: float) -> float:
    """The true share at which `count` or more of `total` occur with this probability."""
    return bisect(0.0, count / total, lambda x: _beta(x, count, total - count + 1) < probability)


def bisect(start: float, end: float, holds: Callable[[float], bool]) -> float:
    """Find, by bisection, the point up to which a condition holds from `start` towards `end`.

    The condition holds at `start`; `end` may be below `start`.
    """
    for _ in range(_HALVINGS):
        middle = (start + end) / 2
        if holds(middle):
            start = middle
        else:
            end = middle
    return start


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
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = _nonzero(1 + term / c), 1 / _nonzero(1 + term * d)
            fraction *= c * d
        if abs(c * d - 1) < 1e-13:
            break
    return front * fraction


def _nonzero(value: float) -> float:
    """Replace a divisor that is 0 (or nearly so) by a tiny number."""
    return value if abs(value) > 1e-300 else 1e-300
