"""How good margins are on loans that were not fitted on."""

from __future__ import annotations

import math

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from peerloan.model.onnx_model import FLOOR
from peerloan.stats import intervals
from peerloan.stats.arrays import Numbers

# What a figure can be, where that is not from 0 to 1.
BOUNDS = {"gini": (-1.0, 1.0), "log_loss": (0.0, math.inf)}
FIGURES = ("auc", "gini", "ks", "average_precision", "log_loss", "brier", "recall", "flagged")


def figures(late: Numbers, margins: Numbers, threshold_margin: float) -> dict[str, float]:
    """The FIGURES of margins against outcomes, of which there must be some of either kind.

    Gini is 2 AUC − 1, KS the largest distance of the two distributions of scores; recall and the
    share flagged are those from the threshold on.
    """
    p = np.clip(1 / (1 + np.exp(-margins)), FLOOR, 1 - FLOOR)
    flagged = margins >= threshold_margin
    auc = float(roc_auc_score(late, margins))
    false_positive, true_positive, _ = roc_curve(late, margins)
    return {
        "auc": auc,
        "gini": 2 * auc - 1,
        "ks": float(np.max(true_positive - false_positive)),
        "average_precision": float(average_precision_score(late, margins)),
        "log_loss": float(log_loss(late, p)),
        "brier": float(brier_score_loss(late, p)),
        "recall": float(flagged[late == 1].mean()),
        "flagged": float(flagged.mean()),
    }


def auc_interval(late: Numbers, auc: float) -> tuple[float, float]:
    """A 95 % interval of an AUC on loans with these outcomes."""
    n_late = float(late.sum())
    return intervals.auc_interval(auc, n_late, len(late) - n_late)
