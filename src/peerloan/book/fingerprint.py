"""A digest of a table's content."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pyarrow as pa

from peerloan.loan import Definition, Loans, TextColumn
from peerloan.stats.arrays import Codes


class Fingerprint:
    """SHA-256 of the fields and the label of checked loans, in their order.

    It does not depend on the file format or on how the table is divided into parts. Each column
    has its own digest: of numbers as little-endian doubles, of texts as UTF-8 after their length
    in four bytes. The result is the digest of all column names and column digests.
    """

    def __init__(self, definition: Definition) -> None:
        self._names = definition.names
        self._columns = {name: hashlib.sha256() for name in definition.names}
        self._label_name = definition.label.column
        self._label = hashlib.sha256()

    def update(self, loans: Loans, labels: Codes | None = None) -> None:
        """Add the next loans, and their labels if there are any."""
        for name in self._names:
            column = loans.columns[name]
            if isinstance(column, TextColumn):
                self._columns[name].update(_text_bytes(column))
            else:
                # The same bits for every NaN; adding 0 turns −0 into 0.
                numbers = np.where(np.isnan(column), np.nan, column) + 0.0
                self._columns[name].update(numbers.astype("<f8").tobytes())
        if labels is not None:
            self._label.update(labels.astype(np.int8).tobytes())

    def hexdigest(self) -> str:
        """The digest of what was added so far: 64 hex digits."""
        combined = hashlib.sha256()
        for name, column in (*self._columns.items(), (self._label_name, self._label)):
            combined.update(_with_length(name) + column.digest())
        return combined.hexdigest()


def _text_bytes(texts: TextColumn) -> pa.Buffer | bytes:
    missing = b"\xff\xff\xff\xff"  # as a length, longer than any text
    levels = pa.array([*map(_with_length, texts.levels), missing], pa.large_binary())
    codes = np.where(texts.codes < 0, len(texts.levels), texts.codes)
    return levels.take(pa.array(codes)).buffers()[2] or b""


def _with_length(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<I", len(data)) + data
