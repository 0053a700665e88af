"""The fast decoder gives the same loans as `Checks`."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peerloan.loan import (
    Checked,
    CheckedLoans,
    Checks,
    Decoder,
    Definition,
    Loans,
    Suggestions,
    TextColumn,
    parse_definition,
    unusual_values,
)
from peerloan.loan.decoding import unusual_rows

DEFINITION = parse_definition(
    """
model = "toys"

[label]
column = "outcome"
late = "bad"
on_time = "good"

[roles]
id = "number of loan"
date = "day"

[[field]]
name = "income.monthly"
kind = "number"
label = "Income"
above = 0.0
max = 1e6
seen = [100.0, 5000.0]

[[field]]
name = "rate"
kind = "number"
label = "Rate"
percent = true
min = -1.0
missing = true
seen = [0.0, 1.0]

[[field]]
name = "open loans"
kind = "whole"
label = "Open loans"
min = 0.0
missing = true

[[field]]
name = "Möbel"
kind = "category"
label = "Furniture"
levels = ["lamp", "table: round"]
missing = true

[[field]]
name = "rating"
kind = "ordered"
label = "Rating"
levels = ["A", "B", "C"]
""",
    "test",
)
CHECKS = Checks(DEFINITION, known=["former"])
DECODER = Decoder(CHECKS)
MOST = 1000
GOOD: dict[str, Any] = {
    "income.monthly": 1000,
    "rate": 0.5,
    "open loans": 2,
    "Möbel": "lamp",
    "rating": "B",
}

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**30), 10**30),
    st.sampled_from([0, -0.0, 1e300, 100.0, 5000.0, 5000.0000001, 2**53 + 1, 2**64, 0.5, 3.0]),
)
values = st.one_of(
    numbers,
    st.text(max_size=5),
    st.sampled_from(["lamp", "table: round", "A", "B", "C", "sofa", "", "a\nb", "x" * 201]),
    st.none(),
    st.booleans(),
    st.just([1]),
    st.just({}),
)
fitting = st.fixed_dictionaries(
    {
        "income.monthly": st.one_of(st.floats(0.001, 1e6), st.integers(1, 10**6)),
        "rating": st.sampled_from("ABC"),
    },
    optional={
        "rate": st.one_of(st.none(), st.floats(-1, 2), st.floats(2, 200)),
        "open loans": st.one_of(st.none(), st.integers(0, 9), st.just(2.0)),
        "Möbel": st.one_of(st.none(), st.sampled_from(["lamp", "table: round", "sofa", "a:b"])),
        "loan_id": st.one_of(st.none(), st.text("ab", min_size=1), st.integers()),
    },
)
anything = st.one_of(
    fitting,
    st.dictionaries(
        st.sampled_from([*GOOD, "loan_id", "number of loan", "day", "former", "outcome", "x"]),
        values,
    ),
    st.builds(
        lambda name, value: GOOD | {name: value}, st.sampled_from([*GOOD, "loan_id"]), values
    ),
)


def same(found: Checked | None, close: Checked) -> bool:
    """Whether both say the same; a close look may be asked for only where it is worth it."""
    if found is None:
        return True
    return bool(msgspec.to_builtins(found) == msgspec.to_builtins(close))


@given(anything)
@example({**GOOD, "income.monthly": 2**53 + 1})
@example({**GOOD, "rate": -0.0})
@example({**GOOD, "income.monthly": 90_000})
@example({**GOOD, "income.monthly": 0.002, "rate": 60, "Möbel": "sofa"})
@example({**GOOD, "loan_id": "a", "number of loan": "a"})
@example({**GOOD, "loan_id": None, "number of loan": 5.0})
def test_a_decoded_loan_equals_a_checked_one(record: dict[str, Any]) -> None:
    content = json.dumps(record).encode()
    close = CHECKS.loan(msgspec.json.decode(content))
    found = DECODER.loan(content)
    assert same(found, close)
    if found is not None:
        assert [type(value) for value in found.values] == [type(value) for value in close.values]
        assert close.problems == []


@given(fitting)
def test_a_valid_loan_is_decoded_by_the_fast_path(record: dict[str, Any]) -> None:
    assert DECODER.loan(json.dumps(record).encode()) is not None
    assert DECODER.loan(json.dumps(record, indent=2, ensure_ascii=False).encode()) is not None


@given(st.lists(anything, max_size=6))
def test_a_decoded_list_equals_checked_loans(records: list[dict[str, Any]]) -> None:
    found = DECODER.loans(json.dumps(records).encode(), MOST)
    close = [CHECKS.loan(record) for record in msgspec.json.decode(json.dumps(records))]
    if found is None:
        return
    assert not any(each.problems for each in close)
    agree(found, close)


@given(st.lists(fitting, min_size=1, max_size=6))
def test_a_list_of_valid_loans_is_decoded_by_the_fast_path(records: list[dict[str, Any]]) -> None:
    assert DECODER.loans(json.dumps(records).encode(), MOST) is not None


@given(st.lists(fitting, min_size=1, max_size=6))
def test_columns_are_the_same_loans(records: list[dict[str, Any]]) -> None:
    ids = [record.pop("loan_id", None) for record in records]
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    close = [
        CHECKS.loan({**record, "loan_id": own}) for record, own in zip(records, ids, strict=True)
    ]
    columns["loan_id"] = ids
    found = DECODER.columns(columns, MOST)
    assert found is not None
    agree(found, close)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*GOOD, "loan_id"]),
            st.one_of(values, st.sampled_from([math.inf, -math.inf, math.nan, "\ud800", 10**400])),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_decoded_columns_of_any_values_equal_checked_loans(
    changes: list[tuple[str, Any]],
) -> None:
    records = [{**GOOD, "loan_id": None, name: value} for name, value in changes]
    columns = {name: [record[name] for record in records] for name in records[0]}
    found = DECODER.columns(columns, MOST)
    close = [CHECKS.loan(record) for record in records]
    assert (found is None) == any(each.problems for each in close)
    if found is not None:
        agree(found, close)


def agree(found: CheckedLoans, close: list[Checked]) -> None:
    """Columns, ids and warnings are what the close looks found."""
    made = CheckedLoans.of(DEFINITION, close)
    assert found.loans.rows() == [each.values for each in close]
    assert list(found.loan_ids) == list(made.loan_ids)
    assert found.warnings == made.warnings == unusual_values(found.loans, Suggestions())
    questioned = [i for i, loan in made.warnings.items() if any(each.question for each in loan)]
    assert unusual_rows(found.loans)[questioned].all()
    assert columns_of(found.loans) == columns_of(made.loans)
    assert msgspec.json.encode(found.values_by_field) == msgspec.json.encode(made.values_by_field)


def columns_of(loans: Loans) -> list[Any]:
    def shown(column: Any) -> Any:
        if isinstance(column, TextColumn):
            return [None if code == -1 else column.levels[code] for code in column.codes]
        return [None if math.isnan(value) else value for value in column]

    return [shown(loans.columns[name]) for name in loans.definition.names]


@pytest.mark.parametrize(
    "content",
    [
        b'{"income.monthly": 1000, "rating": "A", "rating": "B"}',
        b'{"income.monthly": 1000, "rating": "A", "rate": null, "rate": 0.5}',
        b'{"income.monthly": 1000, "income.monthly" : 2, "rating": "A"}',
        b'{"income.monthly": 1e400, "rating": "A"}',
        b'{"income.monthly": NaN, "rating": "A"}',
        b'{"income.monthly": 1000, "rating": "A", "M\\u00f6bel": "\\ud800"}',
        b"[]",
        b"{}",
        b"",
        b"nonsense",
        b"[" * 100_000,
    ],
)
def test_unusual_json_is_left_to_the_checks(content: bytes) -> None:
    assert DECODER.loan(content) is None
    assert DECODER.loans(content, MOST) is None
    assert DECODER.loans(b"[" + content + b"]", MOST) is None


def test_a_colon_in_a_text_is_not_a_duplicate_name() -> None:
    found = DECODER.loan(json.dumps(GOOD | {"Möbel": 'a ":b" : c'}).encode())
    # The name's quotes end before a colon, and so do those of this text: a close look decides.
    assert found is None or found.values[3] == 'a ":b" : c'
    found = DECODER.loan(json.dumps(GOOD | {"Möbel": "table: round"}).encode())
    assert found is not None


def test_too_many_loans_are_left_to_the_checks() -> None:
    two = json.dumps([GOOD, GOOD]).encode()
    assert DECODER.loans(two, 2) is not None
    assert DECODER.loans(two, 1) is None
    columns = {name: [value, value] for name, value in GOOD.items()}
    assert DECODER.columns(columns, 2) is not None
    assert DECODER.columns(columns, 1) is None


def test_nan_is_a_wrong_value_and_not_a_missing_one(definition: Definition) -> None:
    """Python's JSON reader takes NaN; no bound of this field would refuse it."""
    may_miss = msgspec.structs.replace(definition.fields[0], missing=True)
    for field in (definition.fields[0], may_miss):
        checks = Checks(msgspec.structs.replace(definition, fields=(field,)))
        assert checks.loan({"a": math.nan}).problems
        assert Decoder(checks).columns({"a": [1.0, math.nan]}, MOST) is None
    assert Decoder(checks).columns({"a": [1.0, None]}, MOST) is not None


def test_columns_of_different_lengths_are_left_to_the_checks() -> None:
    columns = {name: [value] for name, value in GOOD.items()} | {"rate": [0.1, 0.2]}
    assert DECODER.columns(columns, MOST) is None


def test_levels_that_are_scored_come_from_the_definition_alone(definition: Definition) -> None:
    """A definition without ranges or levels that were seen has nothing to warn of."""
    found = Decoder(Checks(definition)).loan(b'{"a": 1e9}')
    assert found is not None
    assert found.warnings == []


@pytest.fixture
def definition() -> Definition:
    return parse_definition(
        'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n'
        '[[field]]\nname = "a"\nkind = "number"\nlabel = "A"\n',
        "test",
    )


def test_numbers_become_doubles(definition: Definition) -> None:
    found = Decoder(Checks(definition)).loans(b'[{"a": 1}, {"a": 2.5}]', MOST)
    assert found is not None
    assert found.loans.numbers("a").dtype == np.float64
    assert found.loans.rows() == [(1.0,), (2.5,)]
