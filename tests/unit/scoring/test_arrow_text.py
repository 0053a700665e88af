"""Texts that Arrow builds in columns equal those built loan by loan."""

from __future__ import annotations

import json

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peerloan import uuid7
from peerloan.loan import Loans, default_definition, distinct
from peerloan.model import BatchReasons, ReasonKey
from peerloan.scoring.arrow_text import ids_of, inputs_of, reason_columns, reason_lists

DEFINITION = default_definition()
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.just(-0.0)
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
ROWS = st.lists(
    st.tuples(*(NUMBERS if field.is_number else TEXTS for field in DEFINITION.fields)),
    min_size=1,
    max_size=8,
)


@given(ROWS, st.data())
def test_loans_as_json_equal_those_written_one_by_one(
    rows: list[tuple[float | str | None, ...]], data: st.DataObject
) -> None:
    own_ids = data.draw(st.lists(TEXTS, min_size=len(rows), max_size=len(rows)))
    loans = Loans.of(DEFINITION, rows)
    expected = [
        msgspec.json.encode(dict(zip((*DEFINITION.names, "my id"), (*row, own), strict=True)))
        for row, own in zip(rows, own_ids, strict=True)
    ]
    assert inputs_of(loans, {"my id": own_ids}) == [each.decode() for each in expected]


@given(ROWS, st.data())
def test_reasons_are_those_of_each_loan(
    rows: list[tuple[float | str | None, ...]], data: st.DataObject
) -> None:
    width = len(DEFINITION.fields)
    points = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0])
    contributions = np.array(
        [data.draw(st.lists(points, min_size=width, max_size=width)) for _ in rows]
    )
    reasons = BatchReasons.of(Loans.of(DEFINITION, rows), contributions)
    assert len({msgspec.json.encode(key) for key in reasons.keys}) == len(reasons.keys)
    texts = [msgspec.json.encode(key).decode() for key in reasons.keys]
    expected = [
        [
            ReasonKey(i, row[i], own[i])
            for i in sorted(range(width), key=lambda i: -own[i])
            if own[i] > 0
        ][:4]
        for row, own in zip(rows, contributions.tolist(), strict=True)
    ]
    # As they are written: 0.0 and -0.0 would be equal otherwise.
    assert reason_lists(texts, reasons.places) == [
        msgspec.json.encode(each).decode() for each in expected
    ]
    columns = [each.to_pylist() for each in reason_columns(texts, reasons.places)]
    assert [[text for text in own if text is not None] for own in zip(*columns, strict=True)] == [
        [msgspec.json.encode(each).decode() for each in own] for own in expected
    ]


def test_a_loan_without_reasons_keeps_its_place() -> None:
    places = np.array([[0, -1], [-1, -1], [1, 0]])
    assert reason_lists(['"a"', '"b"'], places) == ['["a"]', "[]", '["b","a"]']
    assert [json.loads(each) for each in reason_lists([], np.full((2, 4), -1))] == [[], []]


def test_positive_and_negative_zero_are_distinct() -> None:
    places, values = distinct(np.array([0.0, -0.0, np.nan, 0.0, np.nan]))
    assert [msgspec.json.encode(values[place]) for place in places.tolist()] == [
        *(b"0.0", b"-0.0", b"null", b"0.0", b"null")
    ]


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=4))
def test_ids_are_those_of_each_decision(made: list[bytes]) -> None:
    assert ids_of(made).to_pylist() == [uuid7.text(each) for each in made]
