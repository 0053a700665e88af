"""Calibration: shift and scale log-odds so that the probabilities fit the outcomes.

Platt's method (1999): a logistic regression of the outcome on the margin, out of fold. Ranking and
reasons are unchanged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peerloan.model import PlattCalibration
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import log_odds, regress_on_margins

_LEAST_SLOPE = 1e-6


def fit_calibration(margins: Numbers, late: Numbers) -> PlattCalibration:
    """Fit slope and intercept to the outcomes, which must contain both classes.

    A slope that isn't positive would reverse the ranking. Such margins have no information, and
    only the intercept is fitted.
    """
    # With Platt's smoothed targets, the slope is finite even if the margins separate late loans
    # from the others perfectly.
    n_late = float(late.sum())
    n_other = len(late) - n_late
    target = np.where(late == 1, (n_late + 1) / (n_late + 2), 1 / (n_other + 2))
    slope, intercept = regress_on_margins(margins, target)
    if slope > _LEAST_SLOPE:
        return PlattCalibration(slope, intercept)
    level = log_odds(float(np.mean(late))) - _LEAST_SLOPE * float(np.mean(margins))
    return PlattCalibration(_LEAST_SLOPE, level)


def is_informative(calibration: PlattCalibration) -> bool:
    """Whether the fitted margins have information about the outcomes (a positive slope)."""
    return calibration.slope > _LEAST_SLOPE


def cross_fitted(margins: Numbers, late: Numbers, fold: npt.NDArray[np.int64]) -> Numbers:
    """Return out-of-fold margins, each calibrated on the other folds' loans.

    `fold` (n,) is the fold in which each loan was evaluated.
    """
    calibrated = np.empty_like(margins)
    for number in np.unique(fold):
        in_fold = fold == number
        calibration = fit_calibration(margins[~in_fold], late[~in_fold])
        calibrated[in_fold] = calibration.apply(margins[in_fold])
    return calibrated
