"""Resampling of the loans that are fitted on, because late loans are rare.

The evaluated loans are not resampled: they keep their late rate.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.preprocessing import RobustScaler

from peerloan.stats.arrays import Numbers

Resampling = Literal["none", "class-weight", "smote"]
# A synthetic loan is between a late loan and one of this many nearest ones (as in the paper).
_NEIGHBOURS = 5
_LARGEST = float(np.finfo(np.float32).max)


def resample(
    how: Resampling, matrix: Numbers, late: Numbers, seed: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Return rows, labels and weights to fit on.

    `class-weight` gives both classes the same total weight. `smote` appends synthetic late loans
    between neighbouring late ones (Chawla et al. 2002) until there are as many late loans as
    others; it appends nothing if there are as many already, or only one late loan. For `smote`
    the matrix must not contain NaN. Distances are measured on robustly scaled columns.
    """
    weights = np.ones(len(late))
    n_late = int(late.sum())
    others = len(late) - n_late
    if how == "class-weight":
        weights = np.where(late == 1, len(late) / (2 * n_late), len(late) / (2 * others))
    elif how == "smote" and 1 < n_late < others:
        from imblearn.over_sampling import SMOTE  # imported only if used: it takes a second

        # In single precision, as estimators see them: squares of larger numbers would overflow.
        matrix = np.clip(matrix, -_LARGEST, _LARGEST)
        centre, scale = robust_scale(matrix)
        smote = SMOTE(
            sampling_strategy={1.0: others},
            k_neighbors=min(_NEIGHBOURS, n_late - 1),
            random_state=seed,
        )
        resampled, _ = smote.fit_resample((matrix - centre) / scale, late)
        # The real loans stay bit-identical.
        matrix = np.concatenate([matrix, resampled[len(late) :] * scale + centre])
        late = np.concatenate([late, np.ones(others - n_late)])
        weights = np.ones(len(late))
    return matrix, late, weights


def robust_scale(matrix: Numbers) -> tuple[Numbers, Numbers]:
    """Return median and interquartile range of each column.

    If half of a column is one value, the range is 0, and the standard deviation is used instead:
    otherwise a few large values would outweigh all other columns. The range of a constant column
    is 1.
    """
    scaler = RobustScaler().fit(matrix)
    low, high = np.quantile(matrix, [0.25, 0.75], axis=0)
    spread = matrix.std(axis=0)
    scale = np.where(high > low, scaler.scale_, np.where(spread > 0, spread, 1.0))
    return scaler.center_, scale
