"""Calibration: rescale log-odds so that the probabilities are right.

Platt's method (1999): a logistic regression of the outcome on the margin, out of fold. It only
shifts and scales, so ranking and reasons are unchanged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peerloan.model import Calibration
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import log_odds, regress_on_margins

_LEAST_SLOPE = 1e-6


def fit_calibration(margins: Numbers, late: Numbers) -> Calibration:
    """Fit slope and intercept to the outcomes, which must contain both classes.

    A slope that isn't positive would reverse the ranking. Then the margins carry no information,
    and only the intercept is fitted.
    """
    # Platt's smoothed targets, so that margins that separate the classes perfectly have a finite
    # slope too.
    n_late = float(late.sum())
    n_other = len(late) - n_late
    target = np.where(late == 1, (n_late + 1) / (n_late + 2), 1 / (n_other + 2))
    slope, intercept = regress_on_margins(margins, target)
    if slope > _LEAST_SLOPE:
        return Calibration(slope, intercept)
    level = log_odds(float(np.mean(late))) - _LEAST_SLOPE * float(np.mean(margins))
    return Calibration(_LEAST_SLOPE, level)


def is_informative(calibration: Calibration) -> bool:
    """Whether the fitted margins carry information on the outcomes (a positive slope)."""
    return calibration.slope > _LEAST_SLOPE


def cross_fitted(margins: Numbers, late: Numbers, fold: npt.NDArray[np.int64]) -> Numbers:
    """Return out-of-fold margins, each calibrated on the other folds' loans.

    `fold` (n,) is the fold in which each loan was evaluated.
    """
    calibrated = np.empty_like(margins)
    for number in np.unique(fold):
        own = fold == number
        calibrated[own] = fit_calibration(margins[~own], late[~own]).apply(margins[own])
    return calibrated
