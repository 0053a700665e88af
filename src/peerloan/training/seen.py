"""A definition with what a training table holds of each field: ranges and levels."""

from __future__ import annotations

import msgspec
import numpy as np

from peerloan.loan import Definition, Field, Loans
from peerloan.loan.text import stands_for_missing

# Levels of a category that are offered beside those that the definition lists.
_MOST_LEVELS = 100


def definition_as_seen(loans: Loans) -> Definition:
    """The definition with what this table holds: ranges of numbers, levels of categories."""
    fields = tuple(_as_seen(field, loans) for field in loans.definition.fields)
    return msgspec.structs.replace(loans.definition, fields=fields)


def _as_seen(field: Field, loans: Loans) -> Field:
    if field.is_number:
        given = loans.numbers(field.name)
        given = given[~np.isnan(given)]
        seen = (float(given.min()), float(given.max())) if len(given) else None
        return msgspec.structs.replace(field, seen=seen)
    if field.kind == "ordered":
        return field
    column = loans.texts(field.name)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    by_count = np.argsort(-counts, kind="stable").tolist()
    levels = tuple(column.levels[code] for code in by_count if counts[code])
    listed = set(field.levels)
    # The form offers the common ones too, in a list that a person can still read.
    offered = [
        level
        for level in levels[:_MOST_LEVELS]
        if level not in listed and not stands_for_missing(level)
    ]
    return msgspec.structs.replace(field, levels=(*field.levels, *offered), seen=levels)
