"""Checking one loan: all rules, all problems at once, and no exception for any record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.loan import (
    Checked,
    Checks,
    Definition,
    Field,
    Label,
    Loans,
    LoanWarning,
    Problem,
    Roles,
    default_definition,
    json_schema,
)

OTHER = Definition(
    "other",
    Label("outcome", "bad", "good"),
    (
        Field("amount", "number", "Amount", above=0, max=1000, seen=(10, 500)),
        Field("rate", "number", "Rate", min=-1, max=1, percent=True, missing=True),
        Field("count", "whole", "Count", min=0, max=9),
        Field("channel", "category", "Channel", levels=("web", "shop"), missing=True),
        Field("size.of it", "ordered", "Size", levels=("< 1", "1+", "10 %")),
    ),
    Roles(id="number", date="granted", exposure="balance"),
)
PEERLOAN = Checks(default_definition())


def check(loan: Mapping[str, Any], **changes: object) -> Checked:
    return PEERLOAN.loan({**loan, **changes})


def problems(checked: Checked) -> dict[str, tuple[str, str]]:
    assert len({problem.field for problem in checked.problems}) == len(checked.problems)
    return {problem.field: (problem.expected, problem.given) for problem in checked.problems}


def test_a_valid_loan_gives_its_values_in_order(loan: dict[str, Any]) -> None:
    checked = check(dict(reversed(loan.items())))
    assert checked.problems == []
    assert checked.warnings == []
    assert checked.loan_id is None
    assert checked.values == tuple(loan.values())
    assert [type(value) for value in checked.values] == [
        float if field.is_number else str for field in default_definition().fields
    ]


def test_an_optional_field_may_be_null_or_absent(loan: dict[str, Any]) -> None:
    del loan["revol_util"]
    checked = check(loan, emp_length=None)
    assert checked.problems == []
    assert checked.values[5] is None
    assert checked.values[6] is None


def test_an_absent_required_field_is_a_problem(loan: dict[str, Any]) -> None:
    del loan["dti"]
    found = problems(check(loan, grade=None, int_rate=None))
    assert found["dti"] == ("a number (% of monthly income), at least 0", "nothing")
    assert found["grade"] == ("one of 'A', 'B', 'C', 'D', 'E', 'F', 'G'", "null")
    assert found["int_rate"][0].startswith("a fraction a year, at least 0, at most 1")
    assert len(found) == 3


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (True, "true"),
        (False, "false"),
        ("0.1306", "'0.1306'"),
        ("13.06%", "'13.06%'"),
        ("", "''"),
        (13.06, "13.06"),
        (-0.01, "-0.01"),
        (1.0000000000000002, "1.0000000000000002"),
        (10**400, f"1{'0' * 59}… (401 characters)"),
        pytest.param(10**5000, "a number of thousands of digits", id="huge"),
        ([], "[]"),
        ([0.1], "[0.1]"),
        ({}, "{}"),
        ("\x00", "'\\x00'"),
        ("\ud800", "'\\ud800'"),
    ],
)
def test_a_wrong_rate_is_refused_with_what_is_expected(
    loan: dict[str, Any], value: object, given: str
) -> None:
    expected = "a fraction a year, at least 0, at most 1: 0.1306 for 13.06 %"
    assert problems(check(loan, int_rate=value)) == {"int_rate": (expected, given)}


def test_a_value_nested_too_deep_is_refused(loan: dict[str, Any]) -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    checked = check(loan, dti=nested, purpose=nested, grade=nested, strange=nested, loan_id=nested)
    assert len(checked.problems) == 5


@pytest.mark.parametrize("value", [0, -0.0, 0.0, 1, 1.0, 5e-324, 0.5])
def test_the_range_includes_its_ends(loan: dict[str, Any], value: float) -> None:
    checked = check(loan, int_rate=value)
    assert checked.problems == []
    assert checked.values[1] == value


@pytest.mark.parametrize("value", [0, -0.0, -1, -5e-324])
def test_above_excludes_its_end(loan: dict[str, Any], value: float) -> None:
    assert list(problems(check(loan, loan_amnt=value))) == ["loan_amnt"]
    assert check(loan, loan_amnt=5e-324).problems == []


@pytest.mark.parametrize("value", [0.5, 1e-9, "0", 3.0000001])
def test_a_whole_number_is_whole(loan: dict[str, Any], value: object) -> None:
    assert problems(check(loan, delinq_2yrs=value)) == {
        "delinq_2yrs": ("a whole number, at least 0", repr(value))
    }
    assert check(loan, delinq_2yrs=3.0).problems == []
    assert check(loan, delinq_2yrs=10**20).problems == []


@pytest.mark.parametrize("value", ["H", "a", "", " A", 1, True, ["A"], {}, "\ud800"])
def test_an_ordered_category_is_closed(loan: dict[str, Any], value: object) -> None:
    assert list(problems(check(loan, grade=value))) == ["grade"]


def test_a_category_is_open_with_a_warning_and_a_hint(loan: dict[str, Any]) -> None:
    checked = check(loan, purpose="credit-card", home_ownership="CASTLE 🏰")
    assert checked.problems == []
    assert list(map(str, checked.warnings)) == [
        "purpose: 'credit-card' was not seen in training (did you mean credit_card?)",
        "home_ownership: 'CASTLE 🏰' was not seen in training",
    ]


@pytest.mark.parametrize("value", ["None", "NA", "null", "nan"])
def test_a_level_that_may_stand_for_missing_gets_no_similar_level(
    loan: dict[str, Any], value: str
) -> None:
    (warning,) = check(loan, home_ownership=value).warnings
    assert str(warning) == (
        f"home_ownership: '{value}' was not seen in training: does it stand for a missing value?"
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 201,
        "a\x00b",
        "a\nb",
        "tab\t",
        "a\x7f",
        "\x85",
        "a\ud800",
        "\udc00b",
        5,
        True,
        [],
        {},
    ],
)
def test_text_with_forbidden_characters_is_refused(loan: dict[str, Any], value: object) -> None:
    found = problems(check(loan, purpose=value))
    assert found["purpose"][0] == "text of 1 to 200 characters without control characters"
    assert len(found) == 1
    json.dumps(found, ensure_ascii=False).encode()


def test_text_of_200_characters_is_accepted(loan: dict[str, Any]) -> None:
    assert check(loan, purpose="🏰" * 200).problems == []


def test_a_number_outside_the_seen_range_is_warned_of(loan: dict[str, Any]) -> None:
    checked = check(loan, int_rate=0.5, dti=39.994, delinq_2yrs=24, loan_amnt=40_000)
    assert checked.problems == []
    assert list(map(str, checked.warnings)) == [
        "int_rate: 50 % a year is outside the range seen in training, "
        "5.31 % a year to 30.99 % a year",
        # not "39.99 is outside 0 to 39.99"
        "dti: 39.994 is outside the range seen in training, 0 to 39.99",
        "delinq_2yrs: 24 is outside the range seen in training, 0 to 23",
    ]


def test_an_unknown_field_is_refused_and_the_nearest_named(loan: dict[str, Any]) -> None:
    checked = check(loan, Annual_Income=1, intrate=0.1, zzz={"a": 1})
    assert problems(checked) == {
        "Annual_Income": ("a field of the loan (did you mean annual_inc?)", "1"),
        "intrate": ("a field of the loan (did you mean int_rate?)", "0.1"),
        "zzz": ("a field of the loan", "{'a': 1}"),
    }


def test_the_label_is_not_a_field(loan: dict[str, Any]) -> None:
    assert problems(check(loan, is_late=0)) == {
        "is_late": ("no label: it is what is predicted", "0")
    }


@pytest.mark.parametrize("name", ["\ud800", "a\x00", "", "x" * 201, "x" * 100_000, "{", "🏰"])
def test_a_strange_field_name_is_safe_to_send_back(loan: dict[str, Any], name: str) -> None:
    (problem,) = check({**loan, name: 1}).problems
    json.dumps([problem.field, problem.expected, problem.given], ensure_ascii=False).encode()
    assert len(problem.field) <= 220


def test_fields_of_other_versions_are_ignored_with_a_warning(loan: dict[str, Any]) -> None:
    checks = Checks(default_definition(), known=["term", "dti", "loan_id", "score"])
    assert checks.known == {"term", "score"}
    checked = checks.loan({**loan, "term": "\ud800 whatever", "score": [1]})
    assert checked.problems == []
    assert list(map(str, checked.warnings)) == [
        "term: this model version does not use it",
        "score: this model version does not use it",
    ]
    (problem,) = checks.loan({**loan, "terms": 1}).problems
    assert problem.expected == "a field of the loan (did you mean term?)"


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("a-1", "a-1"),
        ("🏰" * 200, "🏰" * 200),
        (17, "17"),
        (-(10**30), f"-1{'0' * 30}"),
        (None, None),
    ],
)
def test_a_loans_id_is_echoed(loan: dict[str, Any], given: object, echoed: str | None) -> None:
    for checks, name, record in (
        (PEERLOAN, "loan_id", loan),
        (Checks(OTHER), "loan_id", {}),
        (Checks(OTHER), "number", {}),
    ):
        checked = checks.loan({**record, name: given})
        assert checked.loan_id == echoed
        assert name not in problems(checked)
        assert checked.warnings == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 201,
        "a\nb",
        "\ud800",
        1.5,
        True,
        [],
        {},
        10**300,
        pytest.param(10**5000, id="huge"),
    ],
)
def test_an_id_with_forbidden_characters_is_refused(loan: dict[str, Any], value: object) -> None:
    assert problems(check(loan, loan_id=value))["loan_id"][0] == (
        "text of 1 to 200 characters without control characters, or a whole number"
    )


@pytest.mark.parametrize("value", [2.0**53, -(2.0**53), 143349558619761313.0, 1e300])
def test_an_id_that_lost_digits_is_refused(loan: dict[str, Any], value: float) -> None:
    expected, given = problems(check(loan, loan_id=value))["loan_id"]
    assert expected == (
        "a text, or a whole number without a decimal point or exponent, since a number from "
        "9,007,199,254,740,992 on loses digits with one"
    )
    assert float(given) == value


def test_a_large_id_without_a_decimal_point_keeps_its_digits(loan: dict[str, Any]) -> None:
    checked = check(loan, loan_id=143349558619761313)
    assert (checked.problems, checked.loan_id) == ([], "143349558619761313")


def test_an_id_that_is_null_does_not_erase_the_other() -> None:
    checked = Checks(OTHER).loan({"loan_id": "a", "number": None})
    assert checked.loan_id == "a"


@pytest.mark.parametrize(("first", "second"), [("a", "a"), (7, "7"), (7.0, 7), (None, "a")])
def test_the_same_id_may_be_given_twice(first: object, second: object) -> None:
    checked = Checks(OTHER).loan({"loan_id": first, "number": second})
    assert {"loan_id", "number"}.isdisjoint(problems(checked))
    assert checked.loan_id == str(second)


def test_two_different_ids_of_one_loan_are_refused() -> None:
    checked = Checks(OTHER).loan({"loan_id": "a", "number": 7})
    assert problems(checked)["number"] == ("the loan's one id, which is 'a' already", "7")
    assert "loan_id" not in problems(checked)
    assert checked.loan_id == "a"


@pytest.mark.parametrize("record", [{"loan_id": "a", "number": 1.5}, {"loan_id": 1.5, "number": 7}])
def test_an_invalid_second_id_is_refused(record: dict[str, object]) -> None:
    found = problems(Checks(OTHER).loan(record))
    (wrong,) = {"loan_id", "number"} & set(found)
    assert found[wrong] == (
        "text of 1 to 200 characters without control characters, or a whole number",
        "1.5",
    )


def test_valid_column_names_are_accepted_in_any_order() -> None:
    assert PEERLOAN.names(reversed(default_definition().names)) == []
    required = ["amount", "count", "size.of it"]
    assert Checks(OTHER).names(required) == []
    assert (
        Checks(OTHER, known=["term"]).names(
            [*required, "loan_id", "number", "granted", "balance", "term"]
        )
        == []
    )


def test_unknown_and_missing_columns_are_named_once() -> None:
    names = [*(name for name in default_definition().names if name != "annual_inc")]
    names.remove("emp_length")  # which may be missing
    found = PEERLOAN.names([*names, "anual_inc", "is_late", "a\x00", "a\x00"])
    assert found == [
        Problem(
            None, "anual_inc", "a field of the loan (did you mean annual_inc?)", "such a column"
        ),
        Problem(None, "is_late", "no label: it is what is predicted", "such a column"),
        Problem(None, "'a\\x00'", "a field of the loan", "such a column"),
        Problem(None, "annual_inc", default_definition()["annual_inc"].expected, "nothing"),
    ]


def test_role_columns_are_accepted_unchecked() -> None:
    checked = Checks(OTHER).loan({"granted": [1], "balance": "x"})
    assert {"granted", "balance"}.isdisjoint(problems(checked))
    assert checked.warnings == []


def test_every_problem_is_named_at_once_with_the_loans_index() -> None:
    checked = PEERLOAN.loan({"loan_amnt": -1, "loan_id": 1.5, "oops": 1}, index=7)
    assert [problem.loan for problem in checked.problems] == [7] * 10
    assert {problem.field for problem in checked.problems} == {
        *(field.name for field in default_definition().fields if not field.missing),
        "loan_id",
        "oops",
    }


# Any record

_scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 2**64, -0.0, 1e308, 5e-324])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.sampled_from(["web", "A", "1+", "x" * 201, "\ud800", "a\x00"])
)
_anything = st.recursive(
    _scalar,
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=())), each, max_size=3)
    ),
    max_leaves=5,
)


def _records(definition: Definition) -> st.SearchStrategy[dict[str, Any]]:
    names = [*definition.names, *definition.roles.columns(), "loan_id", definition.label.column]
    keys = st.sampled_from(names) | st.text(st.characters(exclude_categories=()))
    return st.dictionaries(keys, _anything, max_size=12)


@given(_records(OTHER) | _records(default_definition()), st.sampled_from([OTHER, None]))
def test_any_record_is_checked_and_its_problems_can_be_sent(
    record: dict[str, Any], definition: Definition | None
) -> None:
    checks = Checks(definition or default_definition(), known=["term"])
    checked = checks.loan(record, 3)
    assert len(checked.values) == len(checks.definition.fields)
    warnings = list(map(str, checked.warnings))
    msgspec.json.encode([checked.problems, warnings, checked.loan_id])
    sent = [[p.field, p.expected, p.given] for p in checked.problems]
    json.dumps([sent, warnings, checked.loan_id], ensure_ascii=False).encode()
    for words in sent:
        assert all(words)
        assert not any("\n" in word or "\x00" in word for word in words)
    if not checked.problems:
        for field, value in zip(checks.definition.fields, checked.values, strict=True):
            if value is None:
                assert field.missing
            elif field.is_number:
                assert type(value) is float
                assert math.isfinite(value)
                assert field.within(value)
            else:
                assert isinstance(value, str)
                value.encode()


# Left out by construction, because JSON Schema can't say it or says it in another way: numbers
# beyond a double (1e400), NaN, lone surrogates, which are no JSON text, and text that ends in a
# line break, before which `$` matches in Python's dialect though not in JSON Schema's (ECMA 262).
_json_scalar = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda text: text[-1:] != "\n")
    | st.sampled_from(["x" * 200, "x" * 201, "🏰" * 200, "\x00", "a\nb"])
)
_json_value = st.recursive(
    _json_scalar, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=3
)


@st.composite
def _near_records(draw: st.DrawFn, definition: Definition) -> dict[str, Any]:
    """Records of which many are valid, and the others wrong in a place or two."""
    record: dict[str, Any] = {}
    for field in definition.fields:
        valid: st.SearchStrategy[Any]
        if field.kind == "number":
            valid = st.sampled_from([0, 0.0, 0.5, 1, -1, 1000, 1e-9]) | st.floats(0, 1)
        elif field.kind == "whole":
            valid = st.integers(-1, 10) | st.sampled_from([3.0, 9.5, 1e20])
        else:
            valid = st.sampled_from([*field.levels, "other"])
        record[field.name] = draw(valid)
    if draw(st.booleans()):
        del record[draw(st.sampled_from(sorted(record)))]
    extra = [*definition.names, *definition.roles.columns(), "loan_id", "term", "unknown"]
    record |= draw(
        st.dictionaries(st.sampled_from([*extra, definition.label.column]), _json_value, max_size=2)
    )
    return record


@given(st.data())
@pytest.mark.parametrize("definition", [OTHER, default_definition()], ids=["other", "peerloan"])
def test_the_json_schema_agrees_with_the_check(definition: Definition, data: st.DataObject) -> None:
    record = data.draw(_near_records(definition))
    schema = json_schema(definition, known=["term"])
    jsonschema.Draft202012Validator.check_schema(schema)
    says = jsonschema.Draft202012Validator(schema).is_valid(record)
    checked = Checks(definition, known=["term"]).loan(record)
    assert says == (not checked.problems), checked.problems


def test_the_json_schema_is_plain_json_in_a_fixed_order() -> None:
    schema = json_schema(OTHER, known=["b", "a"])
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    assert list(schema["properties"]) == [
        *OTHER.names,
        *("loan_id", "number", "granted", "balance", "a", "b"),
    ]
    assert schema["required"] == ["amount", "count", "size.of it"]
    assert schema["properties"]["channel"]["anyOf"][0]["examples"] == ["web", "shop"]


# Many checked loans


def test_rows_become_columns_and_rows_again() -> None:
    rows = [
        (1.0, None, 3.0, "web", "1+"),
        (2.0, -0.5, 0.0, None, "< 1"),
        (5e-324, 0.0, 9.0, "other", "1+"),
    ]
    loans = Loans.of(OTHER, rows)
    assert loans.size == 3
    assert loans.rows() == rows
    assert loans.take(np.array([2, 0])).rows() == [rows[2], rows[0]]
    assert loans.take(np.array([False, True, False])).rows() == [rows[1]]
    assert loans.take(np.array([False] * 3)).rows() == []
    assert loans.texts("channel").recode(("x", "web"), 2).tolist() == [1, -1, 2]


def test_no_rows_become_empty_columns() -> None:
    loans = Loans.of(OTHER, [])
    assert loans.size == 0
    assert loans.rows() == []
    assert loans.numbers("amount").dtype == np.float64
    assert loans.texts("channel").recode(("web",), 1).tolist() == []


def test_a_column_may_be_missing_throughout() -> None:
    rows = [(1.0, None, 3.0, None, "1+")] * 2
    loans = Loans.of(OTHER, rows)
    assert np.isnan(loans.numbers("rate")).all()
    assert loans.numbers("rate").dtype == np.float64
    assert loans.rows() == rows


def test_an_unseen_level_costs_little_among_thousands() -> None:
    """No hint is looked for among more levels than a person could have meant."""
    levels = tuple(f"branch {i}" for i in range(5_000))
    field = Field(name="branch", kind="category", label="Branch", levels=levels)
    checks = Checks(Definition(model="m", label=Label("y", 1, 0), fields=(field,)))
    assert checks.loan({"branch": "branch x"}).warnings == [
        LoanWarning("branch", "unseen_level", "'branch x' was not seen in training")
    ]
