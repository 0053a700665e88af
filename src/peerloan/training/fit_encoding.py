"""Fit an encoding of loans as numbers to a training table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from peerloan.loan import Field, Loans
from peerloan.model import EncodedColumn, Encoding

# A level with fewer loans is treated as an unseen one.
_LEAST_LOANS = 10
_MOST_LEVELS = 100


def fit_encoding(loans: Loans, *, ranks: bool, impute: bool) -> Encoding:
    """Fit an encoding: numbers unchanged, categories one-hot, ordered ones by rank or one-hot.

    `impute`: a missing number or rank becomes the training table's median, and a column marks it.
    Otherwise it stays missing, for an estimator that handles missing values.
    """
    columns: list[EncodedColumn] = []
    for field in loans.definition.fields:
        if not field.is_number and not (ranks and field.kind == "ordered"):
            columns.extend(_one_hot(field, loans))
            continue
        make: Literal["value", "rank"] = "value" if field.is_number else "rank"
        if not impute:
            columns.append(EncodedColumn(field.name, make))
            continue
        values = Encoding((EncodedColumn(field.name, make),)).matrix(loans)[:, 0]
        values = values[~np.isnan(values)]
        # Halving is exact, and the mean of the two middle values can't overflow.
        fill = float(np.median(values / 2) * 2) if len(values) else 0.0
        columns.append(EncodedColumn(field.name, make, fill=fill))
        if field.missing:
            columns.append(EncodedColumn(field.name, "missing"))
    # An estimator needs a column, even if all levels are rare.
    placeholder = EncodedColumn(loans.definition.fields[0].name, "missing")
    return Encoding(tuple(columns) or (placeholder,))


def _one_hot(field: Field, loans: Loans) -> Iterator[EncodedColumn]:
    column = loans.texts(field.name)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    common = np.argsort(-counts, kind="stable")[:_MOST_LEVELS].tolist()
    # Sorted by name, so that the order of columns doesn't depend on the order of rows.
    for level in sorted(column.levels[code] for code in common if counts[code] >= _LEAST_LOANS):
        yield EncodedColumn(field.name, "level", level)
    if field.missing:
        yield EncodedColumn(field.name, "missing")
