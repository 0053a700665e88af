"""How good margins are on loans that were not fitted on."""

from __future__ import annotations

import math

import numpy as np

from peerloan.model.onnx_model import FLOOR
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import log_losses, logistic, squared_errors
from peerloan.stats.discrimination import ScoreCounts, auc_of_counts, average_precision, ks_gaps

# What a figure can be, where that is not from 0 to 1.
BOUNDS = {"gini": (-1.0, 1.0), "log_loss": (0.0, math.inf)}
FIGURES = ("auc", "gini", "ks", "average_precision", "log_loss", "brier", "recall", "flagged")
# Log-odds whose probabilities are those that an ONNX model is held to.
_MOST = math.log((1 - FLOOR) / FLOOR)


def figures(late: Numbers, margins: Numbers, threshold_margin: float) -> dict[str, float]:
    """The FIGURES of margins against outcomes, of which there must be some of either kind.

    Gini is 2 AUC − 1, KS the most by which the distribution of late loans' scores is above that of
    the others; recall and the share flagged are those from the threshold on.
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
