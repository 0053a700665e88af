"""Types of the arrays that formulas and columns of loans use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Shape (n,): values of loans, NaN where a value is missing.
Numbers = npt.NDArray[np.float64]
# Shape (n,): integers of loans, such as indices of levels (-1 where a value is missing).
Codes = npt.NDArray[np.int64]
