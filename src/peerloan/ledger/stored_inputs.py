"""What a decision was made on, read again by the definition of the version that made it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.loan import Checked, Checks, Decoder, Definition, Loans, Rereader, Suggestions
from peerloan.loan.text import parse_whole, text_fault

# A ledger may hold millions of loans with misspelt levels.
_NONE = Suggestions(comparisons=0)


class InputReader:
    """Reads the inputs that the ledger has of decisions by versions of one definition; one by one,
    `exact` reads texts as releases before did, each as its own value. Warnings suggest nothing.
    """

    def __init__(self, definition: Definition, exact: bool = False) -> None:
        self._definition = definition
        self._decoder = Decoder(Checks(definition, exact=exact))
        self._together = Rereader(definition)
        # What callers knew of other versions then is not what is known now: any name is let pass.
        self._checks = lru_cache(maxsize=64)(lambda names: Checks(definition, names, exact))

    def read(self, inputs: str) -> Checked | str:
        """The loan; why not, if it can't be read."""
        try:
            content = inputs.encode()
            return self._decoder.loan(content, _NONE) or self._closely(content)
        except (ValueError, AttributeError, RecursionError) as error:
            return f"the inputs can't be read as JSON: {error}"

    def read_many(self, inputs: Sequence[str]) -> tuple[Loans, npt.NDArray[np.bool_]]:
        """The loans that can be read, and which those are (n,)."""
        good = np.ones(len(inputs), dtype=np.bool_)
        read = self._together.loans(f"[{','.join(inputs)}]".encode()) if inputs else None
        # What is no JSON by itself may be some together with its neighbour.
        if read is not None and read.size == len(inputs):
            return read, good
        rows = []
        for i, each in enumerate(inputs):
            checked = self.read(each)
            if isinstance(checked, str):
                good[i] = False
            else:
                rows.append(checked.values)
        return Loans.of(self._definition, rows), good

    def _closely(self, content: bytes) -> Checked | str:
        record = decode_loan(content)
        if not isinstance(record, dict):
            return "the inputs are no loan"
        if any(map(text_fault, record)):
            return "the inputs name a field as none can be named"
        checked: Checked = self._checks(frozenset(record)).loan(record, None, _NONE)
        if checked.problems:
            first = checked.problems[0]
            return f"{first.field}: expected {first.expected}, given {first.given}"
        return checked


def decode_loan(content: bytes) -> Any:
    """A kept loan: JSON, and what is nearly JSON (NaN, a lone surrogate) where nobody looked."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError):
        return json.loads(content, parse_int=parse_whole)
