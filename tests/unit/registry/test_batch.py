"""A batch decision is the decision on each loan, and it is written once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import peerloan
from helpers.paths import FORMATS
from peerloan.loan import Field, Loans, Value
from peerloan.model import BANDS
from peerloan.registry import Bundle, Decision

KINDS = ["scorecard", "onnx"]
PACKAGE = Path(peerloan.__file__).parent
# Rooms in which decisions are made. Others measure a model: they need margins of many loans too.
DECIDING = ["registry", "scoring", "ledger", "web", "cli"]
# What turns many loans into margins, and margins into decisions.
STEPS = {"score_many", "margins", "late_many", "bands_many", "probabilities", "BatchReasons"}


@cache
def bundle_of(kind: str) -> Bundle:
    """The small stored bundle of a kind."""
    (folder,) = (path for path in (FORMATS / f"format-1-{kind}").iterdir() if path.is_dir())
    return Bundle.read(folder)


def values_of(field: Field) -> st.SearchStrategy[Value]:
    """Allowed values of a field, also those that training never met."""
    values: st.SearchStrategy[Any]
    if field.is_number:
        low = field.min if field.above is None else field.above
        values = st.floats(low, field.max, allow_nan=False, allow_infinity=False)
        if field.kind == "whole":
            values = st.integers(0 if low is None else int(low) + 1, 1_000).map(float)
        values = values.filter(field.within)
    else:
        values = st.sampled_from([*field.levels, *([] if field.kind == "ordered" else ["moon"])])
    return st.none() | values if field.missing else values


def rows_of(bundle: Bundle) -> st.SearchStrategy[list[tuple[Value, ...]]]:
    return st.lists(st.tuples(*map(values_of, bundle.definition.fields)), max_size=6)


def bits(decision: Decision) -> bytes:
    """All of a decision; 0.0 and −0.0 are different."""
    return msgspec.json.encode(decision)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)  # reasons of an ONNX version take milliseconds
@given(data=st.data())
def test_many_decisions_are_the_decision_on_each_loan(kind: str, data: st.DataObject) -> None:
    bundle = bundle_of(kind)
    rows = data.draw(rows_of(bundle))
    loans = Loans.of(bundle.definition, rows)
    for explain in (True, False):
        decisions = bundle.decide_many(loans, explain=explain)
        assert decisions.explained.tolist() == [explain] * len(rows)
        assert [*map(bits, bundle.unpack(decisions, loans.values_by_field()))] == [
            bits(bundle.decide(row, explain=explain)) for row in rows
        ]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)  # reasons of an ONNX version take milliseconds
@given(data=st.data())
def test_columns_have_the_shapes_and_types_that_are_promised(
    kind: str, data: st.DataObject
) -> None:
    bundle = bundle_of(kind)
    rows = data.draw(rows_of(bundle))
    decisions = bundle.decide_many(Loans.of(bundle.definition, rows))
    size, fields = len(rows), len(bundle.definition.fields)
    assert decisions.contributions is not None
    assert decisions.reasons is not None
    for column, dtype, shape in (
        (decisions.margins, np.float64, (size,)),
        (decisions.probabilities, np.float64, (size,)),
        (decisions.late, np.bool_, (size,)),
        (decisions.bands, np.int64, (size,)),
        (decisions.contributions, np.float64, (size, fields)),
        (decisions.reasons.positions, np.int64, (size, min(4, fields))),
        (decisions.reasons.places, np.int64, (size, min(4, fields))),
    ):
        assert column.dtype == dtype
        assert column.shape == shape
    assert set(decisions.bands.tolist()) <= set(range(len(BANDS)))
    assert (bundle.base + decisions.contributions.sum(axis=1)).tolist() == (
        decisions.margins.tolist()
    )


def loans_of(bundle: Bundle, size: int) -> Loans:
    """Some golden loans of a bundle."""
    golden = bundle.manifest.golden[:size]
    names = bundle.definition.names
    return Loans.of(bundle.definition, [tuple(each.loan[n] for n in names) for each in golden])


def test_loans_are_explained_one_by_one_for_as_long_as_positions_come() -> None:
    bundle = bundle_of("onnx")
    loans = loans_of(bundle, 5)
    taken = []

    def positions() -> Iterator[int]:
        for i in (3, 0):
            taken.append(i)
            yield i

    decisions = bundle.decide_many(loans, explain=positions())
    assert taken == [3, 0]
    assert decisions.explained.tolist() == [True, False, False, True, False]
    values = loans.values_by_field()
    whole = bundle.unpack(bundle.decide_many(loans), values)
    for i, found in enumerate(bundle.unpack(decisions, values)):
        if i in (0, 3):
            assert found == whole[i]
        else:
            assert (found.contributions, found.reasons) == (None, None)
            assert (found.margin, found.late) == (whole[i].margin, whole[i].late)


def test_a_scorecard_explains_every_loan_whichever_are_named() -> None:
    bundle = bundle_of("scorecard")
    loans = loans_of(bundle, 5)
    values = loans.values_by_field()
    assert bundle.unpack(bundle.decide_many(loans, explain=[2]), values) == bundle.unpack(
        bundle.decide_many(loans), values
    )


def test_contributions_are_listed_only_if_they_are_wanted() -> None:
    bundle = bundle_of("scorecard")
    loans = loans_of(bundle, 3)
    decisions, values = bundle.decide_many(loans), loans.values_by_field()
    for one, other in zip(
        bundle.unpack(decisions, values),
        bundle.unpack(decisions, values, contributions=False),
        strict=True,
    ):
        assert one.contributions is not None
        assert msgspec.structs.replace(one, contributions=None) == other


def steps_in(path: Path) -> set[str]:
    """The steps of a batch decision that a module calls."""
    called = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else ""
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                called.add(function.value.id)
            called.add(function.id if isinstance(function, ast.Name) else name)
    return called & STEPS


def test_only_one_module_makes_batch_decisions() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): steps
        for room in DECIDING
        for path in (PACKAGE / room).rglob("*.py")
        if (steps := steps_in(path))
    }
    assert found.pop("registry/batch.py") == STEPS
    # It offers the margins to the rooms that measure, and decides nothing with them.
    assert found.pop("registry/bundle.py") == {"score_many", "margins"}
    assert found == {}
