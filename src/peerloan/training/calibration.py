"""Calibration: putting log-odds on the scale on which probabilities are right.

Platt's method (1999): a logistic regression of the outcome on the margin, out of fold. It only
shifts and scales, so ranking and reasons stay what they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peerloan.model import Calibration
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import log_odds, regress_on_margins

_LEAST_SLOPE = 1e-6


def fit_calibration(margins: Numbers, late: Numbers) -> Calibration:
    """The slope and intercept that fit these outcomes best; there must be some of either kind.

    A slope that isn't positive would turn the ranking round; then margins carry nothing, and only
    their level is set.
    """
    # A little short of certain, as Platt takes outcomes: so margins that part late loans from the
    # others without an error have a finite slope too.
    n_late = float(late.sum())
    n_other = len(late) - n_late
    target = np.where(late == 1, (n_late + 1) / (n_late + 2), 1 / (n_other + 2))
    slope, intercept = regress_on_margins(margins, target)
    if slope > _LEAST_SLOPE:
        return Calibration(slope, intercept)
    level = log_odds(float(np.mean(late))) - _LEAST_SLOPE * float(np.mean(margins))
    return Calibration(_LEAST_SLOPE, level)


def is_informative(calibration: Calibration) -> bool:
    """Whether the fitted margins say anything of the outcomes, in their own direction."""
    return calibration.slope > _LEAST_SLOPE


def cross_fitted(margins: Numbers, late: Numbers, fold: npt.NDArray[np.int64]) -> Numbers:
    """Out-of-fold margins, each calibrated on the other folds' loans.

    `fold` (n,) says in which fold each loan was judged.
    """
    calibrated = np.empty_like(margins)
    for number in np.unique(fold):
        own = fold == number
        calibrated[own] = fit_calibration(margins[~own], late[~own]).apply(margins[own])
    return calibrated
