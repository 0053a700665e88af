"""How good a fitted candidate is on loans that it has not seen."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from peerloan.loan import Numbers
from peerloan.model import Policy
from peerloan.model.onnx_model import FLOOR


def metrics(late: Numbers, probability: Numbers, policy: Policy) -> dict[str, float]:
    """AUC, recall and share flagged at the policy's threshold, Brier score and log loss."""
    flagged = probability >= policy.threshold
    inside = np.clip(probability, FLOOR, 1 - FLOOR)
    return {
        "auc": float(roc_auc_score(late, probability)),
        "recall": float(flagged[late == 1].mean()),
        "flagged": float(flagged.mean()),
        "brier": float(brier_score_loss(late, probability)),
        "log_loss": float(log_loss(late, inside)),
        "held_out": float(len(late)),
        "held_out_late": float(late.sum()),
    }
