"""Encode loans as the numeric input of an estimator.

An encoding is data: a list of columns, each made from one field. Training and serving use the same
encoding, so only the numeric estimator is converted to ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Loans, Value
from peerloan.stats.arrays import Numbers


class EncodedColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input column, made from a field.

    `make` is `value` (the number), `rank` (the position of an ordered level), `level` (1 if the
    value is `level`, else 0) or `missing` (1 if there is no value, else 0). A missing value or rank
    becomes `fill`; NaN if `fill` is None.
    """

    field: str
    make: Literal["value", "rank", "level", "missing"]
    level: str = ""
    fill: float | None = None


class Encoding(msgspec.Struct, frozen=True):
    """The columns of an estimator's input, in order."""

    columns: tuple[EncodedColumn, ...]

    def check(self, definition: Definition) -> None:
        """Raise ValueError unless each column is made from a field of a suitable kind."""
        for column in self.columns:
            if column.field not in definition.names:
                raise ValueError(
                    f"encoding: expected fields of the definition, given {column.field!r}"
                )
            kind = definition[column.field].kind
            if column.make not in _MAKES[kind]:
                raise ValueError(
                    f"{column.field}: expected {' or '.join(_MAKES[kind])} for a field of the kind "
                    f"{kind}, given {column.make}"
                )

    def matrix(self, loans: Loans) -> Numbers:
        """Encode loans: float64 (n, columns)."""
        out = np.empty((loans.size, len(self.columns)), order="F")
        for i, column in enumerate(self.columns):
            out[:, i] = _encode_many(column, loans)
        return out

    def field_indexes(self, definition: Definition) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the position of each column's field in the definition (columns,)."""
        return np.array([definition.names.index(column.field) for column in self.columns])

    def row_encoder(self, definition: Definition) -> Callable[[Sequence[Value]], list[float]]:
        """Return a function that encodes the values of one loan in the same way as `matrix`."""
        cells = [
            (definition.names.index(column.field), _cell(column, definition))
            for column in self.columns
        ]
        return lambda values: [cell(values[position]) for position, cell in cells]


def to_single(matrix: Numbers) -> npt.NDArray[np.float32]:
    """Convert to single precision. A number out of range becomes the largest single.

    Estimators refuse infinity, and no split of a tree separates such numbers from the largest
    single.
    """
    largest = float(np.finfo(np.float32).max)
    return np.clip(matrix, -largest, largest).astype(np.float32)


_MAKES = {
    "number": ("value", "missing"),
    "whole": ("value", "missing"),
    "ordered": ("rank", "level", "missing"),
    "category": ("level", "missing"),
}


def _encode_many(column: EncodedColumn, loans: Loans) -> Numbers:
    field = loans.definition[column.field]
    if field.is_number:
        values = loans.numbers(field.name)
        if column.make == "missing":
            return np.asarray(np.isnan(values), dtype=np.float64)
    else:
        texts = loans.texts(field.name)
        if column.make == "missing":
            return np.asarray(texts.codes == -1, dtype=np.float64)
        if column.make == "level":
            return np.asarray(texts.recode((column.level,), 1) == 0, dtype=np.float64)
        ranks = texts.recode(field.levels, -1)
        values = np.where(ranks == -1, np.nan, ranks)
    return values if column.fill is None else np.where(np.isnan(values), column.fill, values)


def _cell(column: EncodedColumn, definition: Definition) -> Callable[[Value], float]:
    fill = np.nan if column.fill is None else column.fill
    level = column.level
    if column.make == "missing":
        return lambda value: float(value is None)
    if column.make == "level":
        return lambda value: float(value == level)
    if column.make == "value":
        return lambda value: fill if value is None else value  # type: ignore[return-value]
    ranks: dict[Value, float] = {
        ordered_level: float(rank)
        for rank, ordered_level in enumerate(definition[column.field].levels)
    }
    return lambda value: ranks.get(value, fill)
