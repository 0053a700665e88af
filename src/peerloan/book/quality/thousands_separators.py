"""Detect thousands separators that are read as decimal points: 12.000 for twelve thousand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A number with a point as thousands separator, as in German or Spanish tables.
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
# Numbers below a thousand have no separator.
_SMALL = r"^[+-]?[0-9]{1,3}$"
_ROUND = r"00$"
# A column whose first values are not written like this is not searched further.
_LOOKED_AT = 1_000
_MOSTLY = 0.9
# A book misread like this lies at least this factor below the highest value seen in training.
_FAR = 20


class SeparatorDoubt(NamedTuple):
    """A doubt as a sentence, and how many rows it is about."""

    text: str
    rows: int


class SeparatorCounter:
    """Counts the cells of a number's column of text that are written as 12.000."""

    def __init__(self) -> None:
        self._grouped = self._round = self._cells = 0
        self._example = ""
        self._open = True

    def add(self, column: pa.Array) -> None:
        """Add the next cells, as the file has them."""
        if self._open and (
            pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ):
            column = column.cast(pa.binary())
        if not (self._open and pa.types.is_binary(column.type)):
            return
        self._add(column[:_LOOKED_AT])
        self._open = self._mostly
        if self._open:
            self._add(column[_LOOKED_AT:])

    def _add(self, column: pa.Array) -> None:
        grouped = pc.match_substring_regex(column, _GROUPED)
        cells = column.filter(grouped)
        small = _count(pc.match_substring_regex(column, _SMALL))
        self._cells += _count(pc.greater(pc.binary_length(column), 0)) - small
        self._grouped += len(cells)
        self._round += _count(pc.match_substring_regex(cells, _ROUND))
        if len(cells) and not self._example:
            self._example = cells[0].as_py().decode("ascii")

    @property
    def _mostly(self) -> bool:
        return self._grouped >= _MOSTLY * max(self._cells, 1)

    def doubt(
        self, highest: float, seen: tuple[float, float] | None, median_below: bool
    ) -> SeparatorDoubt | None:
        """The doubt about a column with this highest value; None if there is none.

        Numbers may really have three decimals. Misread thousands lie far below the range seen in
        training; if that range is unknown, most of them must be round.
        """
        if not self._grouped or not self._mostly:
            return None
        if seen is None:
            if 2 * self._round < self._grouped:
                return None
        elif not median_below and highest * _FAR > seen[1]:
            return None
        plain = self._example.replace(".", "")
        text = (
            f"the numbers are written as {self._example}, which is read as "
            f"{float(self._example):g}; if it means {int(plain):,}, write {plain}"
        )
        return SeparatorDoubt(text, self._grouped)


def _count(mask: pa.Array) -> int:
    return int(np.count_nonzero(mask.to_numpy(zero_copy_only=False)))
