"""Build texts and JSON of many loans with Arrow: each distinct part is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from peerloan.loan import Loans, distinct
from peerloan.stats.arrays import Codes

_encode = msgspec.json.encode


def reason_columns(texts: Sequence[str], places: Codes) -> Iterator[pa.Array]:
    """Yield the columns of first reasons, second reasons, …; null where a loan has none.

    `texts` are the distinct reasons, `places` (n, ≤ 4) their positions, as in `BatchReasons`.
    """
    distinct_texts = pa.array(texts, pa.string())
    for column in places.T:
        yield distinct_texts.take(pa.array(column, mask=column < 0))


def ids_of(ids: Sequence[bytes]) -> pa.Array:
    """Format ids (16 bytes each) as a column of UUIDs with hyphens."""
    digits = np.frombuffer(b"".join(ids).hex().encode(), dtype="S1").reshape(-1, 32)
    dashed = np.insert(digits, (8, 12, 16, 20), b"-", axis=1)
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * dashed.shape[1]
    return pa.StringArray.from_buffers(
        len(ids), pa.py_buffer(offsets), pa.py_buffer(dashed.tobytes())
    )


def reason_lists(texts: Sequence[str], places: Codes) -> list[str]:
    """Each loan's reasons as a JSON array; `texts` are the distinct reasons as JSON.

    `places` (n, ≤ 4) are positions in `texts`, −1 for none.
    """
    # No reason is an empty text: with nulls, Arrow's join would give null for the whole loan.
    places = np.where(places < 0, len(texts), places).T
    first = pa.array([*texts, ""], pa.string())
    following = pa.array([*(f",{text}" for text in texts), ""], pa.string())
    parts = [(following if i else first).take(pa.array(column)) for i, column in enumerate(places)]
    return _to_list(pc.binary_join_element_wise("[", *parts, "]", ""))


def inputs_of(loans: Loans, others: Mapping[str, Sequence[Any]]) -> list[str]:
    """Each loan as a JSON object, with the values of `others` (by name) appended."""
    parts = []
    for name in loans.definition.names:
        places, values = distinct(loans.columns[name])
        parts.append(_members(name, values).take(pa.array(places)))
    parts += [_members(name, values) for name, values in others.items()]
    inner = pc.binary_join_element_wise(*parts, ",")
    return _to_list(pc.binary_join_element_wise("{", inner, "}", ""))


def _members(name: str, values: Sequence[Any]) -> pa.Array:
    """JSON members `"name":value` of these values."""
    prefix = _encode(name) + b":"
    return pa.array([prefix + _encode(value) for value in values], pa.binary()).cast(pa.string())


def _to_list(texts: pa.Array) -> list[str]:
    listed: list[str] = texts.to_numpy(zero_copy_only=False).tolist()
    return listed
