"""Show row numbers as ranges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from peerloan.formatting import agree, plural
from peerloan.stats.arrays import Codes

# At most this many ranges are listed.
_SHOWN = 200


def spans_of(spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Join adjacent ranges; takes and returns ascending (first, last) pairs of shape (n, 2)."""
    starts = np.flatnonzero(np.append(True, spans[1:, 0] > spans[:-1, 1] + 1))
    ends = np.append(starts[1:] - 1, len(spans) - 1)
    return np.stack([spans[starts, 0], spans[ends, 1]], axis=1)


def ranges_of(rows: Codes) -> list[tuple[int, int]]:
    """Ascending row numbers as ranges (first, last)."""
    return [(first, last) for first, last in spans_of(np.stack([rows, rows], axis=1)).tolist()]


def show_ranges(ranges: list[tuple[int, int]], unlisted: int = 0) -> str:
    """Format rows: 'row 5', 'rows 5, 7, 30–111068'; `unlisted` more rows are only counted."""
    listed = ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in ranges[:_SHOWN])
    count = unlisted + sum(last - first + 1 for first, last in ranges)
    if rest := unlisted + sum(last - first + 1 for first, last in ranges[_SHOWN:]):
        listed += f" and {plural(rest, 'more row')}"
    return f"{agree(count, 'row', 'rows')} {listed}"
