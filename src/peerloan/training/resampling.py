"""Resampling of a training fold, against the rarity of late loans.

Only ever of loans that are fitted on: what is judged keeps its own late rate.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from imblearn.over_sampling import SMOTE
from sklearn.preprocessing import RobustScaler

from peerloan.loan import Numbers

Resampling = Literal["none", "class-weight", "smote"]


def resample(
    how: Resampling, matrix: Numbers, late: Numbers, seed: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Rows, labels and weights to fit on.

    `class-weight` gives both classes the same total weight. `smote` adds synthetic late loans
    between neighbouring late ones (Chawla et al. 2002) until there are as many as others; the
    matrix must have no NaN, and distances are taken on robustly scaled columns.
    """
    weights = np.ones(len(late))
    if how == "class-weight":
        share = late.mean()
        weights = np.where(late == 1, 0.5 / share, 0.5 / (1 - share))
    elif how == "smote":
        scaler = RobustScaler()
        neighbours = max(1, min(5, int(late.sum()) - 1))
        scaled, late = SMOTE(k_neighbors=neighbours, random_state=seed).fit_resample(
            scaler.fit_transform(matrix), late
        )
        matrix, weights = scaler.inverse_transform(scaled), np.ones(len(late))
    return matrix, late, weights

