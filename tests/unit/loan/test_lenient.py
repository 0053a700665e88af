"""Loans as people write them: what is understood, what is refused, and what stays as it is."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peerloan.formatting import as_whole
from peerloan.loan import (
    Checks,
    Definition,
    Field,
    Label,
    Roles,
    Understood,
    check_leniently,
    default_definition,
    find_name,
    read_leniently,
)

DEFAULT = default_definition()
LOAN: dict[str, Any] = {field.name: field.default for field in DEFAULT.fields}
GROUPS = [" ", "\u00a0", "\u2009", "\u202f", "'", "’", "_", ",", "."]


def of_fields(*fields: Field) -> Definition:
    """A definition of these fields."""
    return Definition("small", Label("outcome", 1, 0), fields, Roles(id="number", date="granted"))


def number_field(**members: Any) -> Field:
    """A field of numbers."""
    return Field("amount", "number", "Amount", **members)


def read(field: Field, value: object) -> Any:
    """What a value of a field is read as; the `expected` of its problem if it is unclear."""
    loan = read_leniently(of_fields(field), {field.name: value})
    if loan.problems:
        (problem,) = loan.problems
        assert loan.record == {field.name: value}
        assert not loan.values
        return problem.expected
    return loan.record[field.name]


def plain(number: object) -> str:
    """A number as JSON, which shows also whether it is whole."""
    return json.dumps(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12000", 12000),
        (" 0.1306 ", 0.1306),
        ("1.234", 1.234),
        ("-1e3", -1000),
        ("12,000.50", 12000.5),
        ("1.234,5", 1234.5),
        ("1.234.567", 1234567),
        ("1,234,567", 1234567),
        ("0,4", 0.4),
        ("0,400", 0.4),
        (",25", 0.25),
        ("1234,567", 1234.567),
        ("1 234,567", 1234.567),
        ("12'000", 12000),
        ("12_000", 12000),
        ("12\u202f000,5", 12000.5),
        ("$65,000", 65000),
        ("65.000,00 €", 65000),
        ("-$5", -5),
        ("£ -5", -5),
        ("−5", -5),
        ("₹ 1,234", 1234),
    ],
)
def test_a_number_is_read_in_any_usual_spelling(text: str, number: float) -> None:
    assert plain(read(number_field(), text)) == plain(number)


@pytest.mark.parametrize(
    "text",
    [
        *("much", "1,2,3", "12,34,567", "1 2", "1,234 567", "1.234.5", "012,345", "12,", "--5"),
        *("$5€", "+-5", "1e999", "0x10", "1,5e3", "１２", "50¢", "5 USD", "1" * 201, "%", "$"),
        *("1,234,56", "1'234.567.8", "inf", "True", "1/2", "1.2.3", "1 23", "1,\u0660"),
    ],
)
def test_another_text_stays_as_it_is(text: str) -> None:
    loan = read_leniently(of_fields(number_field()), {"amount": text})

    assert (loan.record, loan.understood, loan.problems) == ({"amount": text}, [], [])


def test_a_percent_sign_divides_a_fraction_only() -> None:
    fraction = number_field(percent=True)
    percentage = number_field(unit="% of monthly income")
    money = number_field(unit="US dollars")

    assert read(fraction, "13.06%") == 0.1306
    assert read(fraction, "13,06 %") == 0.1306
    assert read(fraction, "1e1%") == 0.1
    assert read(fraction, "0.1306") == 0.1306
    assert read(percentage, "14.46%") == 14.46
    assert "without '%'" in read(money, "14.46%")
    for field in (fraction, percentage):
        assert "without '$'" in read(field, "$14")
    assert "without '%'" in read(money, "$14%")


def test_an_unclear_comma_is_named_with_both_readings() -> None:
    expected = "a number in which ',' has one meaning: write 1234 or 1.234"
    both = number_field(min=1, max=2000, seen=(1, 1500))

    assert read(number_field(), "1,234") == expected
    assert read(both, " 1,234") == expected
    assert read(number_field(seen=(5, 9)), "1,234") == expected
    assert read(number_field(max=1), "1,234") == expected


def test_an_unclear_point_beside_a_currency_sign_is_named_with_both_readings() -> None:
    expected = "a number in which '.' has one meaning: write 65500 or 65.5"
    assert read(number_field(), "65.500 €") == expected
    assert read(number_field(), "65.50 €") == 65.5
    assert read(number_field(), "65.500") == 65.5


@pytest.mark.parametrize(
    ("field", "text", "number"),
    [
        (Field("amount", "whole", "Amount"), "1,234", 1234),
        (Field("amount", "whole", "Amount", max=9), "1,234", 1234),
        (number_field(), "$1,234", 1234),
        (number_field(), "1,234 €", 1234),
        (number_field(max=99), "1,234", 1.234),
        (number_field(min=99), "1,234", 1234),
        (number_field(min=0, seen=(1000, 40000)), "12,000", 12000),
        (number_field(seen=(0, 39.99)), "14,460", 14.46),
        (number_field(percent=True, max=1), "1,234 %", 0.01234),
    ],
)
def test_the_field_decides_what_an_unclear_comma_is(field: Field, text: str, number: float) -> None:
    assert plain(read(field, text)) == plain(number)


def test_numbers_that_are_valid_stay_and_are_not_listed() -> None:
    for value in (5, 0.5, -0.0, 2**70, True, None, [1], {"a": 1}, math.inf):
        loan = read_leniently(of_fields(number_field()), {"amount": value})
        assert loan.record["amount"] is value
        assert (loan.understood, loan.problems) == ([], [])


@pytest.mark.parametrize("text", ["NaN", "nan", "NA", "N/A", "null", "None", "", "  "])
def test_spellings_of_a_missing_value_are_missing(text: str) -> None:
    category = Field("amount", "category", "Amount", levels=("a",))

    for field in (number_field(), category):
        assert read(field, text) is None
    assert read(category, math.nan) is None
    assert read_leniently(of_fields(category), {"amount": math.nan}).understood == [
        Understood("amount", "NaN", None)
    ]


def test_a_level_that_looks_like_a_missing_value_is_a_level() -> None:
    field = Field("amount", "ordered", "Amount", levels=("NONE", "NA"))

    assert read(field, "None") == "NONE"
    assert read(field, "na ") == "NA"
    assert read(field, "nan") is None


@pytest.mark.parametrize(
    ("levels", "text", "level"),
    [
        (("A", "B"), " B ", "B"),
        (("A", "B"), "b", "B"),
        (("debt_consolidation",), "Debt Consolidation", "debt_consolidation"),
        (("debt_consolidation",), "DEBT-CONSOLIDATION", "debt_consolidation"),
        (("< 1 year", "1 year"), "<1 Year", "< 1 year"),
        (("< 1 year", "1 year"), "1-Year", "1 year"),
        (("11", "12"), " 11.0 ", "11"),
        (("true", "false"), " TRUE", "true"),
        # These stay: several levels match, or another one is meant.
        (("a", "A"), " A", "A"),
        (("a_b", "a b"), "A-B", "A-B"),
        (("A", "B"), "A-", "A-"),
        (("1", "2"), "-1", "-1"),
        (("1-5", "6-9"), "15", "15"),
        (("1-5", "6-9"), "1 - 5", "1-5"),
        (("10+ years",), "10 years", "10 years"),
        (("A", "B"), "C", "C"),
        (("A", "B"), "11.0", "11.0"),
    ],
)
def test_a_level_is_found_by_its_letters_and_digits(
    levels: tuple[str, ...], text: str, level: str
) -> None:
    for field in (
        Field("amount", "category", "Amount", levels=levels),
        Field("amount", "category", "Amount", seen=levels),
        Field("amount", "ordered", "Amount", levels=(*levels, "z")),
    ):
        loan = read_leniently(of_fields(field), {"amount": text})
        assert loan.record == {"amount": level}
        assert [each.read_as for each in loan.understood] == [level] * (level != text)


def test_names_and_labels_are_found_in_any_case() -> None:
    spelled = {"Loan Amount": "1", "INT-RATE": 0.1, "Debt to income": 1, "Loan ID": "x"}

    loan = read_leniently(DEFAULT, spelled)

    assert loan.record == {"loan_amnt": 1, "int_rate": 0.1, "dti": 1, "loan_id": "x"}
    assert loan.understood == [
        Understood("loan_amnt", "Loan Amount", "loan_amnt"),
        Understood("int_rate", "INT-RATE", "int_rate"),
        Understood("dti", "Debt to income", "dti"),
        Understood("loan_id", "Loan ID", "loan_id"),
        Understood("loan_amnt", "1", 1),
    ]


def test_a_name_that_several_fields_match_is_left() -> None:
    definition = of_fields(Field("a b", "number", "One"), Field("A_B", "number", "Two"))

    assert find_name(definition, "ab") is None
    assert find_name(definition, "a b") == "a b"
    assert find_name(definition, "two") == "A_B"
    assert find_name(definition, "Granted") == "granted"
    assert read_leniently(definition, {"ab": 1}).record == {"ab": 1}


def test_two_names_of_one_field_are_a_problem() -> None:
    for record in ({"dti": 1, "DTI": 2}, {"Debt to income": 1, "DTI": 2}):
        checked, _ = check_leniently(Checks(DEFAULT), LOAN | record, index=3)
        (problem,) = (each for each in checked.problems if each.field == "dti")
        assert (problem.loan, problem.expected) == (3, "one name for this field")
        assert "'DTI'" in problem.given


def test_a_field_of_another_version_keeps_its_name() -> None:
    checks = Checks(DEFAULT, known=["INT_RATE"])

    checked, loan = check_leniently(checks, LOAN | {"INT_RATE": "7"})

    assert (checked.problems, loan.understood) == ([], [])
    assert loan.record == LOAN | {"INT_RATE": "7"}


def test_the_strict_check_still_decides_and_says_what_was_read() -> None:
    record = LOAN | {"loan_amnt": "$-5", "int_rate": "130%", "grade": "nan", "dti": "much"}
    record |= {"annual_inc": "1,234", "delinq_2yrs": " -1"}

    checked, _ = check_leniently(Checks(DEFAULT), record)

    assert {each.field: each.given for each in checked.problems} == {
        "loan_amnt": "'$-5', read as -5",
        "int_rate": "'130%', read as 1.3",
        "grade": "'nan', read as null",
        "annual_inc": "'1,234'",
        "dti": "'much'",
        "delinq_2yrs": "-1",
    }


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12) | st.floats() | st.integers()))
def test_any_record_is_read_and_what_was_understood_can_be_sent(record: dict[str, Any]) -> None:
    loan = read_leniently(DEFAULT, record)

    assert len(loan.record) <= len(record)
    msgspec.json.encode(loan.understood)


@given(st.dictionaries(st.sampled_from(DEFAULT.names), st.text(max_size=9), max_size=10))
def test_what_was_read_is_read_again_as_it_is(changes: dict[str, str]) -> None:
    once = read_leniently(DEFAULT, LOAN | changes)
    again = read_leniently(DEFAULT, once.record)

    assert again.record == once.record
    assert (again.names, again.values) == ({}, {})


_digits = st.integers(-(10**14), 10**14)
_decimals = st.integers(0, 6)


def printed(number: str, group: str, point: str) -> str:
    """Print a decimal number with a group separator and a decimal point of choice."""
    sign = number[: len(number) - len(number.lstrip("-"))]
    whole, _, fraction = number.lstrip("-").partition(".")
    grouped = f"{int(whole):,}".replace(",", group)
    return sign + grouped + (point + fraction if fraction else "")


@given(
    digits=_digits,
    decimals=_decimals,
    group=st.sampled_from(["", *GROUPS]),
    point=st.sampled_from([".", ","]),
    percent=st.booleans(),
    space=st.sampled_from(["", " ", "\u00a0"]),
)
def test_a_printed_number_is_read_exactly_or_refused(
    digits: int, decimals: int, group: str, point: str, percent: bool, space: str
) -> None:
    assume(group != point)
    number = f"{digits / 10**decimals:.{decimals}f}"
    text = printed(number, group, point) + (space + "%" if percent else "")
    # A single point is the decimal point of JSON: 1.234 is not 1234.
    assume(not (group == "." and "," not in text and text.count(".") == 1))
    field = number_field(percent=percent)
    expected = float(f"{number}e-2" if percent else number)

    result = read(field, text)

    behind = text.rpartition(",")[2].rstrip("% \u00a0")
    if isinstance(result, str):
        assert (text.count(","), len(behind)) == (1, 3)
        assert "','" in result
    else:
        assert plain(result) == plain(as_whole(expected))


@given(
    number=st.integers(1, 10**9),
    decimals=st.sampled_from([0, 2]),
    sign=st.sampled_from("$€£¥₹"),
    group=st.sampled_from(GROUPS),
    is_first=st.booleans(),
    space=st.sampled_from(["", " "]),
)
def test_a_printed_amount_is_read_exactly(
    number: int, decimals: int, sign: str, group: str, is_first: bool, space: str
) -> None:
    plain_text = f"{number / 10**decimals:.{decimals}f}"
    amount = printed(plain_text, group, "," if group == "." else ".")
    text = sign + space + amount if is_first else amount + space + sign
    result = read(number_field(), text)

    if group == "." and "," not in amount and amount.count(".") == 1:
        assert "'.' has one meaning" in result
    else:
        assert plain(result) == plain(as_whole(float(plain_text)))


@given(st.floats(0.001, 999.999), st.sampled_from([",", "."]))
def test_a_number_seen_in_training_is_read_by_its_range(number: float, point: str) -> None:
    """Whatever the comma could be, only one reading lies in the range."""
    text = f"{number:.3f}"

    assert read(number_field(min=0, seen=(0, 999.999)), text.replace(".", point)) == float(text)
