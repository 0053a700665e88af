"""Thousands separators that are read as decimal points: 12.000 for twelve thousand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A whole number of thousands as German, Spanish and other tables have it.
_GROUPED = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
# Below a thousand there is nothing to separate.
_SMALL = r"^[+-]?[0-9]{1,3}$"
_ROUND = r"00$"
# A column whose first values are written otherwise is looked at no further.
_LOOKED_AT = 1_000
_MOSTLY = 0.9
# How far below the highest value seen in training a book in thousands lies.
_FAR = 20


class Doubted(NamedTuple):
    """What is doubted, in words, and how many rows it is about."""

    text: str
    rows: int


class Thousands:
    """Counts the cells of a number's column of text that are written as 12.000."""

    def __init__(self) -> None:
        self._grouped = self._round = self._cells = 0
        self._example = ""
        self._open = True

    def add(self, column: pa.Array) -> None:
        """Take in the next cells as they stand in the file."""
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
    ) -> Doubted | None:
        """What is doubted of a column with this highest value; None if nothing is.

        Numbers may be written with three decimals. Thousands lie far below the range seen in
        training; where there is none, most of them are round.
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
        return Doubted(text, self._grouped)


def _count(mask: pa.Array) -> int:
    return int(np.count_nonzero(mask.to_numpy(zero_copy_only=False)))
