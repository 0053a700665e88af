"""What a decision was made on, read again by the definition of the version that made it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.errors import PeerLoanError
from peerloan.loan import (
    Checked,
    Checks,
    Decoder,
    Definition,
    Loans,
    StoredLoanDecoder,
    Suggestions,
)
from peerloan.loan.text import parse_whole, text_fault

# A ledger may hold millions of loans with misspelt levels.
_NONE = Suggestions(comparisons=0)


class InputUnreadable(PeerLoanError):
    """Stored inputs are not a loan of the definition they are read by. The message says why."""


class InputReader:
    """Reads the stored inputs of decisions by versions of one definition. Warnings suggest nothing.

    `exact` makes `read` take texts as earlier releases did: each spelling is a value of its own.
    """

    def __init__(self, definition: Definition, exact: bool = False) -> None:
        self._definition = definition
        self._decoder = Decoder(Checks(definition, exact=exact))
        self._together = StoredLoanDecoder(definition)
        # What callers knew of other versions then is not what is known now: any name is let pass.
        self._checks = lru_cache(maxsize=64)(lambda names: Checks(definition, names, exact))

    def read(self, inputs: str) -> Checked:
        """Read the inputs of one decision; raises InputUnreadable."""
        try:
            content = inputs.encode()
            return self._decoder.loan(content, _NONE) or self._check_closely(content)
        except (ValueError, AttributeError, RecursionError) as error:
            raise InputUnreadable(f"the inputs can't be read as JSON: {error}") from None

    def read_many(self, inputs: Sequence[str]) -> tuple[Loans, npt.NDArray[np.bool_]]:
        """Read many inputs: the loans that are readable, and which of the inputs are (n,)."""
        good = np.ones(len(inputs), dtype=np.bool_)
        read = self._together.loans(f"[{','.join(inputs)}]".encode()) if inputs else None
        # Joined, two broken texts may make valid JSON: then the number of loans is another.
        if read is not None and read.size == len(inputs):
            return read, good
        rows = []
        for i, text in enumerate(inputs):
            try:
                rows.append(self.read(text).values)
            except InputUnreadable:
                good[i] = False
        return Loans.of(self._definition, rows), good

    def _check_closely(self, content: bytes) -> Checked:
        record = decode_loan(content)
        if not isinstance(record, dict):
            raise InputUnreadable("the inputs are no loan")
        if any(map(text_fault, record)):
            raise InputUnreadable("the inputs name a field as none can be named")
        checked: Checked = self._checks(frozenset(record)).loan(record, None, _NONE)
        if checked.problems:
            first = checked.problems[0]
            raise InputUnreadable(f"{first.field}: expected {first.expected}, given {first.given}")
        return checked


def decode_loan(content: bytes) -> Any:
    """Decode a stored loan: JSON, or nearly JSON (NaN, a lone surrogate) in old records."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError):
        return json.loads(content, parse_int=parse_whole)
