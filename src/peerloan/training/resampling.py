"""Resampling of a training fold, to counter the rarity of late loans.

Only loans that are fitted on are resampled; the evaluated loans keep their late rate.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.preprocessing import RobustScaler

from peerloan.stats.arrays import Numbers

Resampling = Literal["none", "class-weight", "smote"]
# Nearest late loans between which a synthetic one may lie (the number in the paper).
_NEIGHBOURS = 5
_LARGEST = float(np.finfo(np.float32).max)


def resample(
    how: Resampling, matrix: Numbers, late: Numbers, seed: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Return rows, labels and weights to fit on.

    `class-weight` gives both classes the same total weight. `smote` appends synthetic late loans
    between neighbouring late ones (Chawla et al. 2002) until both classes have the same size; it
    appends nothing if none are due or there is only one late loan. The matrix must then have no
    NaN; distances are measured on robustly scaled columns.
    """
    weights = np.ones(len(late))
    count = int(late.sum())
    others = len(late) - count
    if how == "class-weight":
        weights = np.where(late == 1, len(late) / (2 * count), len(late) / (2 * others))
    elif how == "smote" and 1 < count < others:
        from imblearn.over_sampling import SMOTE  # imported only if used: it takes a second

        # In single precision, as estimators see them: squares of larger numbers would overflow.
        matrix = np.clip(matrix, -_LARGEST, _LARGEST)
        centre, scale = robust_scale(matrix)
        smote = SMOTE(
            sampling_strategy={1.0: others},
            k_neighbors=min(_NEIGHBOURS, count - 1),
            random_state=seed,
        )
        made, _ = smote.fit_resample((matrix - centre) / scale, late)
        # The real loans stay bit-identical.
        matrix = np.concatenate([matrix, made[len(late) :] * scale + centre])
        late = np.concatenate([late, np.ones(others - count)])
        weights = np.ones(len(late))
    return matrix, late, weights


def robust_scale(matrix: Numbers) -> tuple[Numbers, Numbers]:
    """Return median and interquartile range of each column.

    If half of a column is one value, the range is 0 and the standard deviation is used: otherwise a
    few large values would outweigh every other column. A constant column has 1.
    """
    scaler = RobustScaler().fit(matrix)
    low, high = np.quantile(matrix, [0.25, 0.75], axis=0)
    spread = matrix.std(axis=0)
    scale = np.where(high > low, scaler.scale_, np.where(spread > 0, spread, 1.0))
    return scaler.center_, scale
