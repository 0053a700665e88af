"""A loan is kept as it was given, in whatever shape that was."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from peerloan.service.keeping import column_inputs, many_inputs, one_input

# What a field may hold that the champion ignores: also what a check of values would refuse.
# (JSON has no infinite number; what is too large for a double is kept as null.)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
LOANS = st.dictionaries(st.text(), VALUES, max_size=5)


@given(LOANS)
def test_one_loan_is_kept_letter_by_letter(loan: dict[str, Any]) -> None:
    for body in (json.dumps(loan), json.dumps(loan, indent=1)):
        assert one_input(body.encode()) == body
        assert one_input(b"\xef\xbb\xbf" + body.encode()) == body


@given(st.lists(LOANS, min_size=1, max_size=4))
def test_each_loan_of_a_list_is_kept(loans: list[dict[str, Any]]) -> None:
    kept = many_inputs(json.dumps(loans).encode())
    assert [json.loads(each) for each in kept] == loans


@given(st.integers(1, 4), st.data())
def test_each_loan_of_columns_is_kept(size: int, data: st.DataObject) -> None:
    column = st.lists(VALUES, min_size=size, max_size=size)
    columns = data.draw(st.dictionaries(st.text(), column, min_size=1, max_size=4))
    kept = column_inputs(columns)
    assert [json.loads(each) for each in kept] == [
        {name: values[i] for name, values in columns.items()} for i in range(size)
    ]
