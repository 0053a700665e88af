"""95 % intervals of figures, by published formulas."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The normal quantile of two-sided 95 % intervals."""


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


def auc_interval(auc: float, late: float, on_time: float) -> tuple[float, float]:
    """That of the area under the ROC curve of so many late and on-time loans (J. A. Hanley and
    B. J. McNeil 1982).
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (late - 1) * (q1 - auc**2) + (on_time - 1) * (q2 - auc**2)) / (
        late * on_time
    )
    reach = 1.96 * math.sqrt(max(variance, 0.0))
    return max(0.0, auc - reach), min(1.0, auc + reach)
