"""Stored inputs are read by their version's definition, or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest

from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.loan import Definition, Field, Label

DEFINITION = Definition(
    model="m",
    label=Label("y", 1, 0),
    fields=(Field("income", "number", "Income", min=0), Field("home", "category", "Home")),
)
READABLE = '{"income": 1, "home": "rent"}'
UNREADABLE = {
    '{"income": ': "JSON",
    "[1, 2]": "the inputs are not a loan",
    '{"income": 1, "home": "rent", "\\u0000": 1}': "a field whose name is not allowed",
    '{"income": -1, "home": "rent"}': "income: expected a number",
    '{"income": NaN, "home": "rent"}': "income: expected a number",
    '{"income": 1}': "home: expected",
}


@pytest.mark.parametrize(("inputs", "why"), UNREADABLE.items())
def test_unreadable_inputs_are_refused_with_the_reason(inputs: str, why: str) -> None:
    with pytest.raises(InputUnreadable, match=why):
        InputReader(DEFINITION).read(inputs)


def test_readable_and_unreadable_inputs_are_separated() -> None:
    reader = InputReader(DEFINITION)
    assert reader.read(READABLE).values == (1.0, "rent")
    loans, readable = reader.read_many([READABLE, *UNREADABLE, READABLE])
    assert loans.rows() == [(1.0, "rent")] * 2
    assert np.flatnonzero(readable).tolist() == [0, len(UNREADABLE) + 1]
