"""Checked loans as columns: the input of scorecards, encoders and profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan.definition import Definition, Value
from peerloan.stats.arrays import Codes, Numbers


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Coded text: `levels[codes[i]]` is the value of loan i; code −1 means missing."""

    codes: Codes
    levels: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[str | None]) -> TextColumn:
        """Code texts; levels are in order of first appearance."""
        values = tuple(values)
        levels = tuple(value for value in dict.fromkeys(values) if value is not None)
        index: dict[str | None, int] = {level: code for code, level in enumerate(levels)}
        index[None] = -1
        return cls(np.fromiter(map(index.__getitem__, values), np.int64, len(values)), levels)

    def respelled(self, spelling: Callable[[str], str]) -> TextColumn:
        """Replace each level by its spelling; levels that become equal are merged."""
        texts = tuple(map(spelling, self.levels))
        if texts == self.levels:
            return self
        levels = tuple(dict.fromkeys(texts))
        return TextColumn(TextColumn(self.codes, texts).recode(levels, unseen=-1), levels)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> TextColumn:
        """The texts at these positions, or where the mask is true."""
        return TextColumn(self.codes[rows], self.levels)

    def values(self) -> list[str | None]:
        """The texts themselves, None for a missing one."""
        levels = (*self.levels, None)
        return [levels[code] for code in self.codes.tolist()]

    def recode(self, levels: Sequence[str], unseen: int) -> Codes:
        """Codes (n,) into `levels`: `unseen` for a value not among them, −1 for a missing one."""
        index = {level: code for code, level in enumerate(levels)}
        table = np.array([index.get(level, unseen) for level in self.levels] + [-1], dtype=np.int64)
        return table[self.codes]


Column = Numbers | TextColumn


@dataclass(frozen=True)
class Loans:
    """Checked loans: one column per field, float64 (NaN: missing) or coded text."""

    definition: Definition
    columns: Mapping[str, Column]
    size: int

    @classmethod
    def of(cls, definition: Definition, rows: Sequence[tuple[Value, ...]]) -> Loans:
        """Make columns from rows of checked values; a row has its values in the fields' order."""
        by_field = zip(*rows, strict=True) if rows else ([] for _ in definition.fields)
        columns: dict[str, Column] = {}
        for field, values in zip(definition.fields, by_field, strict=True):
            columns[field.name] = (
                # None becomes NaN
                np.array(values, dtype=np.float64) if field.is_number else TextColumn.of(values)
            )
        return cls(definition, columns, len(rows))

    def numbers(self, name: str) -> Numbers:
        """The column of a number field, float64 (n,)."""
        column = self.columns[name]
        assert not isinstance(column, TextColumn), name  # noqa: S101  the definition says so
        return column

    def texts(self, name: str) -> TextColumn:
        """The column of a text field."""
        column = self.columns[name]
        assert isinstance(column, TextColumn), name  # noqa: S101  the definition says so
        return column

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Loans:
        """The loans at these positions, or where the mask is true."""
        columns: dict[str, Column] = {
            name: column.take(rows) if isinstance(column, TextColumn) else column[rows]
            for name, column in self.columns.items()
        }
        size = int(rows.sum()) if rows.dtype == np.bool_ else len(rows)
        return Loans(self.definition, columns, size)

    def rows(self) -> list[tuple[Value, ...]]:
        """The loans as rows of values, the input of functions that take one loan."""
        return list(zip(*self.values_by_field(), strict=True))

    def values_by_field(self) -> list[Sequence[Value]]:
        """The columns as lists of Python values, in the order of the fields."""
        return [column_values(self.columns[name]) for name in self.definition.names]


def distinct(column: Column) -> tuple[Codes, list[Value]]:
    """Code a column: codes (n,) and the distinct values.

    0.0 and −0.0 are distinct values, because their texts differ.
    """
    if isinstance(column, TextColumn):
        places = np.where(column.codes < 0, len(column.levels), column.codes)
        return places, [*column.levels, None]
    bits = np.where(np.isnan(column), np.nan, column).view(np.int64)
    _, firsts, places = np.unique(bits, return_index=True, return_inverse=True)
    return places, column_values(column[firsts])


def column_values(column: Column) -> list[Value]:
    """Convert a column to a list of values, None for missing."""
    if isinstance(column, TextColumn):
        return [*column.values()]
    return [None if value != value else value for value in column.tolist()]
