"""The reference profile: the distribution of each column of the training table.

It has three uses. Drift is measured against it. The "usual" value in a reason is its median or most
frequent level. A bundle's synthetic loans (golden examples, background) are drawn from it. It
contains shares and quantiles of single columns, never a borrower's row.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from peerloan.loan import Definition, Field, Loans, TextColumn, Value
from peerloan.stats.arrays import Numbers

_GRID = np.linspace(0, 1, 21)


class NumberProfile(msgspec.Struct, frozen=True, tag_field="column", tag="number"):
    """21 quantiles (0 %, 5 %, … 100 %), the mean, and the share of missing values.

    A column without values has no quantiles, and its mean is None. The mean is also None if the sum
    overflows. `at_most[i]` is the share of non-missing values that are at most `quantiles[i]`. With
    repeated values it is more than 5 %, 10 % and so on. It is empty in versions of earlier
    releases.
    """

    name: str
    quantiles: tuple[float, ...]
    mean: float | None
    missing: float
    at_most: tuple[float, ...] = ()


class LevelProfile(msgspec.Struct, frozen=True, tag_field="column", tag="level"):
    """Levels, most frequent first, with their shares of all loans; the share of missing values."""

    name: str
    levels: tuple[str, ...]
    shares: tuple[float, ...]
    missing: float


ColumnProfile = NumberProfile | LevelProfile


class ReferenceProfile(msgspec.Struct, frozen=True):
    """The reference distributions of the fields and of the version's probability.

    `loans` is the number of loans in the training table, `late` the share of late ones.
    """

    loans: int
    late: float
    columns: tuple[ColumnProfile, ...]
    probability: NumberProfile

    @classmethod
    def of(cls, loans: Loans, late: Numbers, probability: Numbers) -> ReferenceProfile:
        """Profile a training table.

        `late` (n,) is 0 or 1 for each loan; `probability` (n,) is the version's prediction.
        """
        columns: list[ColumnProfile] = []
        for field in loans.definition.fields:
            if field.is_number:
                columns.append(_number_profile(field.name, loans.numbers(field.name)))
            else:
                columns.append(_level_profile(field.name, loans.texts(field.name)))
        return cls(
            loans.size,
            float(late.mean()),
            tuple(columns),
            _number_profile("probability", probability),
        )

    def usual_ranges(self) -> dict[str, tuple[float, float]]:
        """Return the 5 % and 95 % quantiles of each number field that has values."""
        return {
            column.name: (column.quantiles[1], column.quantiles[-2])
            for column in self.columns
            if isinstance(column, NumberProfile) and len(column.quantiles) == len(_GRID)
        }

    def check(self, definition: Definition) -> None:
        """Raise ValueError unless the profile is valid and has the definition's fields."""
        names = tuple(column.name for column in self.columns)
        if names != definition.names:
            raise ValueError(
                f"profile: expected the fields {', '.join(definition.names)}, "
                f"given {', '.join(names)}"
            )
        if not 0 <= self.late <= 1:
            raise ValueError(f"profile: expected a late rate from 0 to 1, given {self.late}")
        for column in (*self.columns, self.probability):
            if isinstance(column, NumberProfile):
                numbers = column.quantiles
                is_valid = len(numbers) in (0, len(_GRID)) and list(numbers) == sorted(numbers)
                shares = column.at_most
                is_valid &= len(shares) in (0, len(numbers)) and list(shares) == sorted(shares)
            else:
                is_valid = len(column.shares) == len(column.levels) and all(
                    0 < share <= 1 for share in column.shares
                )
            if not (is_valid and 0 <= column.missing <= 1):
                raise ValueError(
                    f"profile of {column.name}: expected ascending quantiles, or shares from 0 to 1"
                )

    def usual(self, name: str) -> Value:
        """Return the median of a number field, or the most frequent level of a text field.

        None if the field has no value.
        """
        column = next(column for column in self.columns if column.name == name)
        if isinstance(column, NumberProfile):
            return column.quantiles[len(column.quantiles) // 2] if column.quantiles else None
        return column.levels[0] if column.levels else None

    def draw(self, definition: Definition, loans: int, seed: int) -> Loans:
        """Draw synthetic loans. Columns are drawn independently, so no row is a borrower's."""
        random = np.random.default_rng(seed)
        columns: dict[str, Numbers | TextColumn] = {}
        for field, column in zip(definition.fields, self.columns, strict=True):
            is_missing = random.random(loans) < column.missing
            u = random.random(loans)
            if isinstance(column, NumberProfile):
                drawn = _draw_numbers(field, column, u)
                columns[field.name] = np.where(is_missing, np.nan, drawn)
            else:
                codes = np.searchsorted(np.cumsum(column.shares), u * sum(column.shares), "right")
                codes = np.minimum(codes, len(column.levels) - 1)
                columns[field.name] = TextColumn(np.where(is_missing, -1, codes), column.levels)
        return Loans(definition, columns, loans)


def _draw_numbers(field: Field, column: NumberProfile, u: Numbers) -> Numbers:
    if not column.quantiles:
        return np.full(len(u), np.nan)
    # Divide by a power of two, which is exact: slopes between huge numbers must not overflow.
    drawn = np.interp(u, _GRID, np.array(column.quantiles) / 64) * 64
    if field.kind == "whole":
        return np.rint(drawn)
    # Round to four significant digits, as people write amounts; clip to the training table's range.
    rounded = np.array([float(f"{value:.4g}") for value in drawn.tolist()])
    return np.asarray(np.clip(rounded, column.quantiles[0], column.quantiles[-1]))


def _number_profile(name: str, values: Numbers) -> NumberProfile:
    present = values[~np.isnan(values)]
    missing = 1 - len(present) / len(values) if len(values) else 0.0
    if not len(present):
        return NumberProfile(name, (), None, missing)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(present.mean())
    quantiles = np.quantile(present, _GRID, method="inverted_cdf")
    at_most = np.searchsorted(np.sort(present), quantiles, side="right") / len(present)
    return NumberProfile(
        name,
        tuple(quantiles.tolist()),
        mean if math.isfinite(mean) else None,
        missing,
        tuple(at_most.tolist()),
    )


def _level_profile(name: str, column: TextColumn) -> LevelProfile:
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    order = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]
    total = max(1, len(column.codes))
    return LevelProfile(
        name,
        tuple(column.levels[i] for i in order),
        tuple(float(counts[i] / total) for i in order),
        float((column.codes == -1).sum() / total),
    )
