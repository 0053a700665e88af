"""Reads the stored inputs of decisions, by the loan definition of the version that decided."""

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

# Don't search for similar levels: a ledger may contain millions of loans with misspelt levels.
_NO_SUGGESTIONS = Suggestions(comparisons=0)


class InputUnreadable(PeerLoanError):
    """Stored inputs are not a valid loan by the definition. The message has the reason."""


class InputReader:
    """Reads the stored inputs of decisions, by one loan definition. Warnings have no suggestions.

    With `exact`, `read` treats each spelling of a text as a separate value, as earlier releases
    did.
    """

    def __init__(self, definition: Definition, exact: bool = False) -> None:
        self._definition = definition
        self._decoder = Decoder(Checks(definition, exact=exact))
        self._joined_decoder = StoredLoanDecoder(definition)
        # Accept any name of a field: other versions, which callers knew then, may have had it.
        self._checks = lru_cache(maxsize=64)(lambda names: Checks(definition, names, exact))
        # Not needed here, and earlier releases accepted ids that this one refuses.
        self._id_names = frozenset(self._checks(frozenset()).id_names)

    def read(self, inputs: str) -> Checked:
        """Read the inputs of one decision. Raises InputUnreadable."""
        try:
            content = inputs.encode()
            return self._decoder.loan(content, _NO_SUGGESTIONS) or self._check_closely(content)
        except (ValueError, AttributeError, RecursionError) as error:
            raise InputUnreadable(f"the inputs can't be read as JSON: {error}") from None

    def read_many(self, inputs: Sequence[str]) -> tuple[Loans, npt.NDArray[np.bool_]]:
        """Read the inputs of n decisions.

        Returns the readable loans, and which of the inputs are readable, of shape (n,).
        """
        readable = np.ones(len(inputs), dtype=np.bool_)
        loans = self._joined_decoder.loans(f"[{','.join(inputs)}]".encode()) if inputs else None
        # Two invalid texts, joined, may be valid JSON; then the number of loans differs.
        if loans is not None and loans.size == len(inputs):
            return loans, readable
        rows = []
        for i, text in enumerate(inputs):
            try:
                rows.append(self.read(text).values)
            except InputUnreadable:
                readable[i] = False
        return Loans.of(self._definition, rows), readable

    def _check_closely(self, content: bytes) -> Checked:
        record = decode_loan(content)
        if not isinstance(record, dict):
            raise InputUnreadable("the inputs are not a loan: expected a JSON object")
        if any(map(text_fault, record)):
            raise InputUnreadable("the inputs have a field whose name is not allowed")
        record = {name: value for name, value in record.items() if name not in self._id_names}
        checked: Checked = self._checks(frozenset(record)).loan(record, None, _NO_SUGGESTIONS)
        if checked.problems:
            first = checked.problems[0]
            raise InputUnreadable(f"{first.field}: expected {first.expected}, given {first.given}")
        return checked


def decode_loan(content: bytes) -> Any:
    """Decode a stored loan: JSON, or in old records nearly JSON (NaN, a lone surrogate)."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError):
        return json.loads(content, parse_int=parse_whole)
