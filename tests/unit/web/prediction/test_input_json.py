"""A loan is kept as it was given, in whatever shape that was, but for the spaces in its JSON."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.ledger.write.loan_json import MAX_LOAN_BYTES
from peerloan.web.http.problems import RequestError
from peerloan.web.prediction.input_json import (
    column_inputs,
    list_inputs,
    one_input,
    record_input,
)

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
def test_one_loan_is_kept_letter_by_letter_but_for_the_spaces(loan: dict[str, Any]) -> None:
    kept = json.dumps(loan, separators=(",", ":"))
    for body in (kept, json.dumps(loan), json.dumps(loan, indent=1), f" \n{kept}\t\r"):
        assert one_input(body.encode()) == kept
        assert one_input(b"\xef\xbb\xbf" + body.encode()) == kept


@pytest.mark.parametrize(
    "value",
    [
        *("1.50", "-0.0", "1E+5", "2e400", "0." + "3" * 20_000, "1" + "0" * 400),
        *(r'"\u0041\/\""', '" a , b : { "', r'"\\"', '"é \u2028"', "[[],{}]", "null"),
        # Nearly JSON, which is taken in a field that the version ignores.
        *("NaN", "-Infinity", r'"\ud800 \" , "'),
    ],
)
def test_every_value_stays_as_it_is_spelled(value: str) -> None:
    assert one_input(f'{{ "a" :\t{value} ,\n"b c":[ {value} ]}} '.encode()) == (
        f'{{"a":{value},"b c":[{value}]}}'
    )
    if value[0] not in "N-" and "ud800" not in value:
        kept = list_inputs(f'[ {{ "a" : {value} }} , {{"b":1 }} ]'.encode())
        assert kept == [f'{{"a":{value}}}', '{"b":1}']


def test_a_loan_is_large_by_what_is_kept_of_it() -> None:
    full = json.dumps({"a": "x" * (MAX_LOAN_BYTES - 8)}, separators=(",", ":"))
    assert len(full) == MAX_LOAN_BYTES
    padded = full.replace(":", " : ").ljust(4_900_000).encode()
    assert one_input(padded) == full
    assert list_inputs(b"[%b]" % padded) == [full]
    assert column_inputs({"a": ["x" * (MAX_LOAN_BYTES - 8)]}) == [full]
    assert record_input(json.loads(full)) == full
    # A letter may have several bytes.
    for value in ("x" * (MAX_LOAN_BYTES - 7), "é" * (MAX_LOAN_BYTES // 2)):
        large = json.dumps({"a": value}, ensure_ascii=False)
        with pytest.raises(RequestError, match="expected at most 64,000 bytes") as one:
            one_input(large.encode())
        with pytest.raises(RequestError, match="expected at most 64,000 bytes") as form:
            record_input({"a": value})
        assert one.value.status == form.value.status == 413
        for many in (
            partial(list_inputs, f'[{{"a":1}},{large}]'.encode()),
            partial(column_inputs, {"a": [1, value]}),
        ):
            with pytest.raises(RequestError) as refused:
                many()
            assert refused.value.status == 422
            assert [(each.loan, each.field) for each in refused.value.problems] == [(1, "(loan)")]


@given(st.lists(LOANS, min_size=1, max_size=4))
def test_each_loan_of_a_list_is_kept(loans: list[dict[str, Any]]) -> None:
    kept = list_inputs(json.dumps(loans).encode())
    assert kept == [json.dumps(loan, separators=(",", ":")) for loan in loans]


@given(st.integers(1, 4), st.data())
def test_each_loan_of_columns_is_kept(size: int, data: st.DataObject) -> None:
    column = st.lists(VALUES, min_size=size, max_size=size)
    columns = data.draw(st.dictionaries(st.text(), column, min_size=1, max_size=4))
    kept = column_inputs(columns)
    assert [json.loads(each) for each in kept] == [
        {name: values[i] for name, values in columns.items()} for i in range(size)
    ]
