"""Types of the arrays that every formula takes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Shape (n,): values, NaN where one is missing.
Numbers = npt.NDArray[np.float64]
# Shape (n,): indices of levels, -1 where one is missing.
Codes = npt.NDArray[np.int64]
