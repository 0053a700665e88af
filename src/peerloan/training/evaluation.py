"""Performance figures of margins on loans that were not fitted on."""

from __future__ import annotations

import math

import numpy as np

from peerloan.model.onnx_model import FLOOR
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import log_losses, logistic, squared_errors
from peerloan.stats.discrimination import ScoreCounts, auc_of_counts, average_precision, ks_gaps

# Ranges of the figures whose range is not 0 to 1.
BOUNDS = {"gini": (-1.0, 1.0), "log_loss": (0.0, math.inf)}
FIGURES = ("auc", "gini", "ks", "average_precision", "log_loss", "brier", "recall", "flagged")
# Log-odds limits that correspond to the limits of an ONNX model's probabilities.
_MOST = math.log((1 - FLOOR) / FLOOR)


def performance_figures(
    late: Numbers, margins: Numbers, threshold_margin: float
) -> dict[str, float]:
    """Compute the FIGURES of margins (n,) and outcomes, which must contain both classes.

    `late` (n,) is 1 for each late loan. Gini is 2 AUC − 1. KS is the largest excess of the late
    loans' score distribution over that of the others. Recall and the share flagged are at the
    threshold.
    """
    p = np.clip(logistic(margins), FLOOR, 1 - FLOOR)
    flagged = margins >= threshold_margin
    counts = ScoreCounts.of(margins, late)
    auc = float(auc_of_counts(*counts))
    return {
        "auc": auc,
        "gini": 2 * auc - 1,
        "ks": max(0.0, float(ks_gaps(*counts).max())),
        "average_precision": average_precision(*counts),
        "log_loss": float(np.mean(log_losses(np.clip(margins, -_MOST, _MOST), late))),
        "brier": float(np.mean(squared_errors(p, late))),
        "recall": float(flagged[late == 1].mean()),
        "flagged": float(flagged.mean()),
    }
