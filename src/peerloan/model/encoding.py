"""From a loan to the numbers that an estimator is trained and run on.

An encoding is data: a list of columns, each made from one field. Training and serving use the
same one, so only the purely numeric estimator needs converting.
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
    """One column: a number (`value`), an ordered rank, or 1 where a level is given (`level`)
    or nothing is (`missing`).

    A missing value or rank becomes `fill`, or NaN where there is none.
    """

    field: str
    make: Literal["value", "rank", "level", "missing"]
    level: str = ""
    fill: float | None = None


class Encoding(msgspec.Struct, frozen=True):
    """The columns of an estimator's input, in order."""

    columns: tuple[EncodedColumn, ...]

    def check(self, definition: Definition) -> None:
        """Raise ValueError unless every column's field is known and of the right kind."""
        for column in self.columns:
            if column.field not in definition.names:
                raise ValueError(f"an encoded column of {column.field!r}, which is no field")
            kind = definition[column.field].kind
            if column.make not in _MAKES[kind]:
                raise ValueError(
                    f"{column.field}: a {kind} field can't be encoded by {column.make}"
                )

    def matrix(self, loans: Loans) -> Numbers:
        """Encode many loans: (n, columns), float64."""
        out = np.empty((loans.size, len(self.columns)), order="F")
        for i, column in enumerate(self.columns):
            out[:, i] = _encode_many(column, loans)
        return out

    def field_indexes(self, definition: Definition) -> np.ndarray[Any, np.dtype[np.int64]]:
        """For each column, the position of its field in the definition."""
        return np.array([definition.names.index(column.field) for column in self.columns])

    def row_encoder(self, definition: Definition) -> Callable[[Sequence[Value]], list[float]]:
        """A function that encodes one loan's values as `matrix` encodes many."""
        cells = [
            (definition.names.index(column.field), _cell(column, definition))
            for column in self.columns
        ]
        return lambda values: [cell(values[position]) for position, cell in cells]


def to_single(matrix: Numbers) -> npt.NDArray[np.float32]:
    """To single precision; a double that is too large for it becomes the largest single.

    No split can tell the two apart, and estimators refuse infinity.
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
        each: float(rank) for rank, each in enumerate(definition[column.field].levels)
    }
    return lambda value: ranks.get(value, fill)
