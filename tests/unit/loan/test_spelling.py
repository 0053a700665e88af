"""Spellings: which texts are the same value, and how a version spells it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.loan import (
    Checks,
    Decoder,
    Definition,
    DefinitionError,
    Field,
    Label,
    StoredLoanDecoder,
    breaking_changes,
    json_schema,
    parse_definition,
)
from peerloan.loan.labels import read_label
from peerloan.loan.spelling import (
    Spelling,
    id_spellings,
    normalize_levels,
    plain,
    text_of,
    typed_levels,
)

# As releases before trained versions: on the texts of a CSV of doubles and of Python's truths.
OLD = Definition(
    model="m",
    label=Label("y", 1, 0),
    fields=(
        Field("region", "category", "Region", levels=("11.0",), seen=("11.0", "12.0", "12")),
        Field("home", "category", "Home", levels=("False", "True"), seen=("true", "false")),
        Field("stage", "ordered", "Stage", levels=("1.0", "2.0", "3"), missing=True),
    ),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, "true") for text in ("true", "True", "TRUE")),
        *((text, "false") for text in ("false", "False", "FALSE")),
        *((text, "11") for text in ("11", "11.0", "11.00")),
        *((text, "0") for text in ("0", "0.0", "-0.0")),
        ("-3.00", "-3"),
        ("1e+16", "10000000000000000"),
        ("1.6777216e+07", "16777216"),
        ("9.223372036854776e+18", "9223372036854775808"),
        ("2026-11-25 10:30:00+01:00", "2026-11-25 10:30:00+0100"),
        ("2026-11-25 10:30:00+00:00", "2026-11-25 10:30:00Z"),
        ("143349558619761313.0", "143349558619761313"),
        ("2026-11-25 00:00:00.000000", "2026-11-25"),
        ("2026-11-25 00:00:00", "2026-11-25"),
        ("2026-11-25 10:30:00.500", "2026-11-25 10:30:00.5"),
        ("2026-11-25 10:30:00.000000Z", "2026-11-25 10:30:00Z"),
        ("2026-11-25 00:00:00+0100", "2026-11-25 00:00:00+0100"),
        ("10:30:00.000", "10:30:00"),
        ("00:00:00.250", "00:00:00.25"),
    ],
)
def test_spellings_of_one_value_have_the_same_plain_text(text: str, value: str) -> None:
    assert plain(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("0012", "0012.0", "1e3", "1.10", "1.50", "v1.0", "1.0.0", "11.", ".0", "+11.0", " 11.0"),
        *("tRUE", "yes", "T", "1,0", "11.0 ", "NaN", "11.0\n", "\u0661.0", "10+ years", "< 1 year"),
    ],
)
def test_any_other_text_is_unchanged(text: str) -> None:
    assert plain(text) == text


def test_truth_values_equal_the_levels_0_and_1_and_vice_versa() -> None:
    bits, truths = Spelling(("1", "0")), Spelling(("True", "False"))
    assert [bits(text) for text in ("true", "False", "1.0")] == ["1", "0", "1"]
    assert [truths(text) for text in ("1", "0.0", "true")] == ["True", "False", "True"]
    assert Spelling(("0", "1", "2"))("true") == "true"


@given(st.text(alphabet="-+.0123456789eTrueFalsE :Z") | st.text())
def test_a_plain_text_stays(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@given(
    st.integers(-(2**63), 2**64) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
)
def test_a_typed_value_has_the_text_of_its_csv(value: int | bool | float) -> None:
    text = text_of(value)
    assert plain(text) == text
    if not isinstance(value, float) or abs(value) < 1e15:
        # str is what pandas and Python write.
        assert plain(str(value)) == text
    if isinstance(value, float):
        assert float(text) == value


def test_texts_of_decimals() -> None:
    texts = {"11.00": "11", "-0.00": "0", "1E+3": "1000", "1.50": "1.50", "0.1": "0.1"}
    assert {given: text_of(Decimal(given)) for given in texts} == texts


def test_a_version_maps_other_spellings_to_its_levels() -> None:
    checks = Checks(OLD)

    def read(region: object, home: object, stage: object) -> tuple[object, ...]:
        checked = checks.loan({"region": region, "home": home, "stage": stage})
        assert not checked.problems, checked.problems
        assert not checked.warnings, checked.warnings
        return checked.values

    for region in ("11", "11.0", "11.00", 11, 11.0):
        for home in ("True", "true", "TRUE", True):
            for stage in ("1", "1.0", 1, 1.0):
                assert read(region, home, stage) == ("11.0", "true", "1.0")
    # Of two levels that are the same value, an exact text is its own.
    assert read("12", "false", "3.0") == ("12", "false", "3")
    assert read("12.0", False, 3) == ("12.0", "false", "3")
    # What it does not know has one text too, but for JSON's numbers: they may be a mistake.
    unseen = checks.loan({"region": "15.0", "home": "TRUE", "stage": None})
    assert unseen.values == ("15", "true", None)
    assert [str(each)[:37] for each in unseen.warnings] == ["region: '15' was not seen in training"]
    wrongs: tuple[Any, ...] = (15, 15.5, True, [11], {}, float("nan"), 10**400)
    for wrong in wrongs:
        problems = checks.loan({"region": wrong, "home": "true", "stage": "1"}).problems
        assert [each.field for each in problems] == ["region"]


REGIONS = ["11", "11.0", "12", "12.0", "12.00", "15", "15.0", "0012", "x"]
HOMES = ["True", "TRUE", "true", "False", "FALSE", "false", "no"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*REGIONS, 11, 12.0]),
            st.sampled_from([*HOMES, True, False]),
            st.sampled_from(["1", "1.0", "2.00", "3.0", None, 2]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_all_readers_give_the_same_values(rows: list[tuple[Any, ...]]) -> None:
    loans = [dict(zip(OLD.names, row, strict=True)) for row in rows]
    checks = Checks(OLD)
    close = [checks.loan(loan) for loan in loans]
    decoder = Decoder(checks)
    for loan, checked in zip(loans, close, strict=True):
        at_once = decoder.loan(json.dumps(loan).encode())
        if at_once is not None:
            assert (at_once.values, at_once.warnings) == (checked.values, checked.warnings)
    expected = [each.values for each in close]
    columns = {name: [loan[name] for loan in loans] for name in OLD.names}
    for found in (
        decoder.loans(json.dumps(loans).encode(), 10),
        decoder.columns(columns, 10),
    ):
        if found is not None:
            assert found.loans.rows() == expected
            warned = {i: each.warnings for i, each in enumerate(close) if each.warnings}
            assert found.warnings == warned
    again = StoredLoanDecoder(OLD).loans(json.dumps(loans).encode())
    if again is not None:
        assert again.rows() == expected


def test_exact_reading_is_that_of_earlier_releases() -> None:
    checks = Checks(OLD, exact=True)
    checked = checks.loan({"region": "11", "home": "True", "stage": None})
    assert checked.values == ("11", "True", None)
    assert len(checked.warnings) == 2
    assert checks.loan({"region": 11, "home": True, "stage": "1"}).problems != []


def test_an_id_has_one_plain_spelling() -> None:
    checks = Checks(OLD)
    loan = {"region": "11", "home": "true", "stage": None}
    for name in (2001, 2001.0, "2001", "2001.0", "2001.00"):
        assert checks.loan(loan | {"loan_id": name}).loan_id == "2001"
    assert checks.loan(loan | {"loan_id": "02001.0"}).loan_id == "02001.0"
    assert id_spellings("2001") == ("2001", "2001.0", "2001.00")
    assert id_spellings("2001.000") == ("2001", "2001.0", "2001.00", "2001.000")
    assert id_spellings("A-1") == ("A-1",)


@pytest.mark.parametrize(
    ("late", "on_time"), [(1, 0), ("1", "0"), (True, False), ("True", "False"), ("1.0", "0.0")]
)
def test_labels_are_read_in_every_form(late: Any, on_time: Any) -> None:
    label = Label("y", late, on_time)
    for value in (1, 1.0, True, "1", "1.0", "1.00", "true", "True", "TRUE"):
        assert read_label(value, label) is True, value
    for value in (0, 0.0, -0.0, False, "0", "0.0", "-0.0", "false", "False", "FALSE"):
        assert read_label(value, label) is False, value
    for value in (2, "", "yes", "t", 0.5, "10"):
        assert read_label(value, label) is None, value


def test_a_truth_value_is_not_a_number_for_other_labels() -> None:
    codes = Label("y", 1, 2)
    assert [read_label(value, codes) for value in (1, "2.0", True, "true", 0)] == [
        *(True, False),
        *(None, None, None),
    ]
    words = Label("y", "late", "current")
    assert read_label("late", words) is True
    assert read_label(1, words) is None


def test_a_new_definition_lists_a_value_once() -> None:
    head = 'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n[[field]]\n'
    with pytest.raises(DefinitionError) as caught:
        parse_definition(
            head + 'name = "a"\nkind = "category"\nlabel = "A"\nlevels = ["11", "x", "11.0"]\n',
            "loan.toml",
        )
    assert str(caught.value) == (
        "loan.toml, line 10, key field.levels: '11' and '11.0' are two spellings of one value; "
        "keep one"
    )


def test_another_spelling_of_a_level_breaks_nothing() -> None:
    (stage,) = (field for field in OLD.fields if field.name == "stage")
    new = Definition(
        model="m",
        label=OLD.label,
        fields=(*OLD.fields[:2], Field("stage", "ordered", "S", levels=("1", "2"), missing=True)),
    )
    assert breaking_changes(OLD, new) == ["stage: drops the level '3'"]
    assert stage.levels == ("1.0", "2.0", "3")


def test_a_new_version_is_trained_on_one_spelling() -> None:
    mixed = Field("a", "category", "A", levels=("11.0", "x", "11", "True"), seen=("11", "11.0"))
    ordered = Field("b", "ordered", "B", levels=("1.0", "2", "2.0"), default="2.0")
    number = Field("c", "number", "C", seen=(1.0, 2.0))
    old = Definition(model="m", label=OLD.label, fields=(mixed, ordered, number))
    a, b, c = normalize_levels(old).fields
    assert (a.levels, a.seen) == (("11.0", "x", "True"), None)
    assert (b.levels, b.default) == (("1.0", "2"), "2")
    assert c == number


def test_the_schema_lists_numbers_and_booleans_that_are_levels() -> None:
    region, home, stage = OLD.fields
    assert typed_levels(region) == [11, 12]
    assert typed_levels(home) == [True, False]
    properties = json_schema(OLD)["properties"]
    assert properties["region"]["anyOf"][1] == {"enum": [11, 12]}
    assert properties["stage"]["anyOf"][0] == {"enum": ["1.0", "2.0", "3", 1, 2, 3]}
    assert typed_levels(Field("a", "category", "A", levels=("x", "0012", "1e3"))) == []
    assert Spelling.of(stage)("3.00") == "3"
