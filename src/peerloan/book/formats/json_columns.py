"""Convert JSON values to an Arrow column: of their common type, or text if they have none."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from peerloan.book.cells import as_text

# Kinds of values: bool, whole (integer), wide (an integer beyond what a double holds exactly), huge
# (an integer beyond 64 bits), number (float), text, nested. A missing value has no kind.
Kinds = set[str]
# Type of a column of objects and arrays: its only field is the JSON text. No loan field accepts it.
NESTED = pa.struct([("json", pa.string())])
_WIDE = 2**53
_HUGE = 2**63
_KINDS = {bool: "bool", float: "number", str: "text", dict: "nested", list: "nested"}


def kinds_of(values: list[Any]) -> Kinds:
    """The kinds of these values."""
    types = set(map(type, values))
    kinds = {_KINDS[kind] for kind in types if kind in _KINDS}
    if int in types:
        numbers = [value for value in values if type(value) is int]
        lowest, highest = min(numbers), max(numbers)
        kinds.add("whole")
        if lowest < -_WIDE or highest > _WIDE:
            kinds.add("wide")
        if lowest < -_HUGE or highest >= _HUGE:
            kinds.add("huge")
    return kinds


def type_of(kinds: Kinds) -> pa.DataType:
    """The column type for these kinds of values; it holds every value exactly."""
    plain = kinds - {"nested"}
    if not plain:
        return NESTED if kinds else pa.null()
    if plain == {"bool"}:
        return pa.bool_()
    if plain <= {"whole", "wide"}:
        return pa.int64()
    if plain <= {"whole", "number"}:
        return pa.float64()
    return pa.string()


def make_column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Make a column of values, with the type that `type_of` returned for them."""
    if kind == NESTED:
        values = [None if value is None else {"json": _as_json(value)} for value in values]
    elif pa.types.is_string(kind):
        values = [
            value if value is None or isinstance(value, str) else as_text(value) for value in values
        ]
    return pa.array(values, kind)


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return '"nested too deep to show"'
