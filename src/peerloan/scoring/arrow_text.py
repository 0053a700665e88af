"""Texts of many loans, put together in columns: each different part is made once."""

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
    """The text of each loan's first reason, of its second, …; null where it has none.

    `texts` are those of the distinct reasons, `places` (n, ≤ 4) as `BatchReasons` has them.
    """
    distinct_texts = pa.array(texts, pa.string())
    for column in places.T:
        yield distinct_texts.take(pa.array(column, mask=column < 0))


def ids_of(ids: Sequence[bytes]) -> pa.Array:
    """Ids as people have them."""
    digits = np.frombuffer(b"".join(ids).hex().encode(), dtype="S1").reshape(-1, 32)
    dashed = np.insert(digits, (8, 12, 16, 20), b"-", axis=1)
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * dashed.shape[1]
    return pa.StringArray.from_buffers(
        len(ids), pa.py_buffer(offsets), pa.py_buffer(dashed.tobytes())
    )


def reason_lists(texts: Sequence[str], places: Codes) -> list[str]:
    """Each loan's reasons as a list in JSON, given each distinct one in JSON and their places."""
    # Where there is none stands an empty text: Arrow's join that skips nulls skips whole loans.
    places = np.where(places < 0, len(texts), places).T
    first = pa.array([*texts, ""], pa.string())
    more = pa.array([*(f",{text}" for text in texts), ""], pa.string())
    parts = [(more if i else first).take(pa.array(each)) for i, each in enumerate(places)]
    return _listed(pc.binary_join_element_wise("[", *parts, "]", ""))


def inputs_of(loans: Loans, others: Mapping[str, Sequence[Any]]) -> list[str]:
    """Each loan as an object in JSON, with what else stands in its row."""
    parts = []
    for name in loans.definition.names:
        places, values = distinct(loans.columns[name])
        parts.append(_members(name, values).take(pa.array(places)))
    parts += [_members(name, values) for name, values in others.items()]
    inner = pc.binary_join_element_wise(*parts, ",")
    return _listed(pc.binary_join_element_wise("{", inner, "}", ""))


def _members(name: str, values: Sequence[Any]) -> pa.Array:
    """Members of an object, all of this name."""
    before = _encode(name) + b":"
    return pa.array([before + _encode(value) for value in values], pa.binary()).cast(pa.string())


def _listed(texts: pa.Array) -> list[str]:
    listed: list[str] = texts.to_numpy(zero_copy_only=False).tolist()
    return listed
