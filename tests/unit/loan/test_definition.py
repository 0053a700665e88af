"""Loan definitions: errors with line and key, JSON, breaking changes, and shown values."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.formatting import format_number, show_value
from peerloan.loan import (
    Definition,
    DefinitionError,
    Field,
    Label,
    ReasonTemplates,
    Roles,
    breaking_changes,
    default_definition,
    parse_definition,
    read_definition,
)
from peerloan.loan.definition import RESERVED
from peerloan.loan.text import parse_number

RIGHT = """\
model = "small"

[label]
column = "outcome"
late = 1
on_time = 0

[roles]
id = "number"
date = "granted"
horizon = [1, 90]

[[field]]
name = "amount"
kind = "number"
label = "Amount"
above = 0
max = 1000
default = 500

[[field]]
name = "count"
kind = "whole"
label = "Count"
min = 0

[[field]]
name = "channel"
kind = "category"
label = "Channel"
levels = ["web", "shop"]
missing = true

[[field]]
name = "rank"
kind = "ordered"
label = "Rank"
levels = ["low", "mid", "high"]
default = "mid"

[texts]
higher = "{label}: {value}, not {usual}."
"""


def refusal(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(text, "x.toml")
    message = str(caught.value)
    assert message.startswith("x.toml")
    assert "\n" not in message
    message.encode()  # can be printed and sent
    return message


def changed(old: str, new: str) -> str:
    assert RIGHT.count(old) == 1, old
    return RIGHT.replace(old, new)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def one_field(**settings: object) -> Definition:
    plain: dict[str, object] = {"name": "a", "kind": "number", "label": "A"}
    return Definition("m", Label("y", 1, 0), (Field(**(plain | settings)),))  # type: ignore[arg-type]


def test_a_valid_definition_is_read() -> None:
    definition = parse_definition(RIGHT, "x.toml")
    assert definition.model == "small"
    assert definition.names == ("amount", "count", "channel", "rank")
    assert definition.label == Label("outcome", 1, 0)
    assert definition.roles == Roles(id="number", date="granted", horizon=(1, 90))
    assert definition["amount"].default == 500
    assert definition["rank"].levels == ("low", "mid", "high")
    assert definition.texts.higher == "{label}: {value}, not {usual}."
    assert definition.texts.lower == ReasonTemplates().lower


def test_the_question_and_the_changeable_fields_are_read() -> None:
    plain = parse_definition(RIGHT, "x.toml")
    assert plain.question is None
    assert plain.question_text == "Late?"
    assert all(field.changeable for field in plain.fields)
    text = changed('model = "small"', 'model = "small"\nquestion = "Gone bad?"')
    text = text.replace("min = 0", "min = 0\nchangeable = false")
    definition = parse_definition(text, "x.toml")
    assert definition.question == definition.question_text == "Gone bad?"
    assert [field.name for field in definition.fields if not field.changeable] == ["count"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("question = 3", "expected text or nothing, got a whole number"),
        ('question = " "', "expected text, got an empty one"),
        ('question = "a\\u0007b"', "expected text without control characters, got 'a\\x07b'"),
        (f'question = "{"?" * 201}"', "expected at most 200 characters, got 201"),
    ],
)
def test_a_wrong_question_is_refused(line: str, reason: str) -> None:
    text = changed('model = "small"', f'model = "small"\n{line}')
    assert refusal(text) == f"x.toml, line 2, key question: {reason}"


def test_a_wrong_changeable_is_refused() -> None:
    text = changed("min = 0", 'min = 0\nchangeable = "no"')
    line = line_of(text, "changeable")
    reason = "key field.changeable: expected true or false, got text"
    assert refusal(text) == f"x.toml, line {line}, {reason}"


def test_a_file_is_read_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "loan.toml"
    for start in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(start + RIGHT.encode())
        assert read_definition(path) == parse_definition(RIGHT, "x.toml")
    path.write_bytes(RIGHT.replace("\n", "\r\n").encode())
    assert read_definition(path) == parse_definition(RIGHT, "x.toml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"none\.toml: can't be read: No such file"):
        read_definition(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes('model = "\xe9"'.encode("latin-1"))
    with pytest.raises(DefinitionError, match=r"latin\.toml: expected UTF-8 text"):
        read_definition(tmp_path / "latin.toml")
    with pytest.raises(DefinitionError, match="can't be read"):
        read_definition(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (RIGHT + "min = = 3\n", RIGHT.count("\n") + 1),
        (RIGHT + "min", RIGHT.count("\n") + 1),
        (changed("late = 1", "late = 1\nlate = 2"), 6),
        (changed("[label]", "[label"), 3),
        (changed('"outcome"', '"out\x00come"'), 4),
    ],
)
def test_invalid_toml_is_refused_with_its_line(text: str, line: int) -> None:
    message = refusal(text)
    assert message.startswith("x.toml: not TOML: ")
    assert f"line {line}," in message or "end of document" in message


@pytest.mark.parametrize("text", ["a = " + "[" * 10_000, "a = " + "1" * 5_000])
def test_toml_beyond_the_limits_of_the_parser_is_refused(text: str) -> None:
    assert refusal(text).startswith("x.toml: not TOML: ")


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"),
    [
        # unknown keys
        ('model = "small"', 'model = "small"\ncolour = "red"', "colour", "no such key"),
        ("late = 1", "late = 1\nearly = 2", "label.early", "no such key"),
        ("above = 0", "abov = 0", "field.abov", "no such key"),
        ("above = 0", '"abov" = 0', "field.abov", "no such key"),
        ("horizon", "horizons", "roles.horizons", "no such key"),
        ("higher", "highest", "texts.highest", "no such key"),
        # missing keys: the line is the table's
        ('kind = "whole"\n', "", "field.kind", "this key is missing"),
        ("on_time = 0\n", "", "label.on_time", "this key is missing"),
        # wrong types
        ("above = 0", 'above = "0"', "field.above", "expected a number or nothing, got text"),
        ("above = 0", "above = true", "field.above", "got true or false"),
        ("above = 0", "above = 1" + "0" * 400, "field.above", "out of range"),
        (
            "default = 500",
            "default = 2020-01-01",
            "field.default",
            "expected a number or text or nothing, got date",
        ),
        ('label = "Count"', "label = 3", "field.label", "expected text, got a whole number"),
        (
            "missing = true",
            "missing = 1",
            "field.missing",
            "expected true or false, got a whole number",
        ),
        (
            "late = 1",
            "late = [1]",
            "label.late",
            "or a whole number or a number or text, got a list",
        ),
        ("late = 1", "late = {a = 1}", "label.late", "got a table"),
        ('levels = ["web", "shop"]', 'levels = "web"', "field.levels", "expected a list, got text"),
        ('"mid", "high"]', '"mid", 4]', "field.levels", "expected text, got a whole number"),
        (
            'higher = "{label}: {value}, not {usual}."',
            "higher = 5",
            "texts.higher",
            "expected text",
        ),
        ("horizon = [1, 90]", "horizon = [1]", "roles.horizon", "a list of length 2, got 1"),
        (
            "horizon = [1, 90]",
            "horizon = [9.5, 90]",
            "roles.horizon",
            "expected a whole number, got a number",
        ),
        ("horizon = [1, 90]", 'horizon = [1, "x"]', "roles.horizon", "got text"),
        # wrong choices
        (
            'kind = "whole"',
            'kind = "integer"',
            "field.kind",
            "one of 'number', 'whole', 'category'",
        ),
        ('kind = "whole"', 'kind = " - at `$.x"', "field.kind", "one of 'number'"),
        ("above = 0", 'riskier = "up"', "field.riskier", "'higher' or 'lower', got 'up'"),
        # what the types don't say
        ('"small"', '"Small model"', "model", "lower-case letters, digits and hyphens"),
        ('"small"', '""', "model", "lower-case letters, digits and hyphens"),
        ("on_time = 0", "on_time = 1", "label.on_time", "expected another value than late's"),
        ("on_time = 0", "on_time = true", "label.on_time", "expected another value than late's"),
        ("on_time = 0", 'on_time = "1"', "label.on_time", "another value than late's, got '1'"),
        ("on_time = 0", 'on_time = ""', "label.on_time", "expected text, got an empty one"),
        ("on_time = 0", 'on_time = "a\\u0007"', "label.on_time", "control characters"),
        ("late = 1", "late = nan", "label.late", "finite"),
        ("late = 1", "late = 1" + "0" * 400, "label.late", "finite"),
        ("on_time = 0", "on_time = -inf", "label.on_time", "finite"),
        ('"outcome"', '""', "label.column", "empty"),
        ("horizon = [1, 90]", "horizon = [90, 1]", "roles.horizon", "[90, 1]"),
        ("horizon = [1, 90]", "horizon = [-1, 1]", "roles.horizon", "[-1, 1]"),
        ("max = 1000", "max = -1", "field.max", "lower bound"),
        ("max = 1000", "max = 0", "field.max", "lower bound"),
        ("max = 1000", "min = nan", "field.min", "expected a finite number, got nan"),
        ("max = 1000", "max = inf", "field.max", "expected a finite number, got inf"),
        ("above = 0", "above = -inf", "field.above", "expected a finite number"),
        ("default = 500", "default = 1001", "field.default", "above 0, at most 1,000"),
        ("default = 500", "default = 0", "field.default", "above 0, at most 1,000"),
        ("default = 500", 'default = "500"', "field.default", "expected a number"),
        ("max = 1000\ndefault = 500", "default = inf", "field.default", "inf"),
        ("min = 0", "default = 2.5", "field.default", "a whole number"),
        ("default = 500", "seen = [2, 1]", "field.seen", "[lowest, highest]"),
        ("default = 500", "seen = [1, 2, 3]", "field.seen", "[lowest, highest]"),
        ("default = 500", 'seen = ["1", "2"]', "field.seen", "[lowest, highest]"),
        ("default = 500", "seen = [nan, nan]", "field.seen", "[lowest, highest]"),
        ("default = 500", "seen = [0, inf]", "field.seen", "[lowest, highest]"),
        ("default = 500", 'levels = ["a"]', "field.levels", "kind = 'ordered'"),
        ('label = "Count"', 'label = " "', "field.label", "empty"),
        (
            'label = "Count"',
            'label = "Co\\nunt"',
            "field.label",
            "control characters, got 'Co\\nunt'",
        ),
        ("min = 0", 'help = "a\\u0000"', "field.help", "control characters, got 'a\\x00'"),
        ("min = 0", 'unit = "\\u0085"', "field.unit", "control characters, got '\\x85'"),
        ("min = 0", 'more = "a\\t"', "field.more", "control characters, got 'a\\t'"),
        ("min = 0", 'less = "\\u007f"', "field.less", "control characters, got '\\x7f'"),
        ("min = 0", 'more = ""', "field.more", "expected a word for people, got an empty one"),
        ("min = 0", 'less = " "', "field.less", "expected a word for people, got an empty one"),
        ("min = 0", "more = 3", "field.more", "expected text, got a whole number"),
        ('"shop"]', '"web"]', "field.levels", "a repeated one in"),
        ('"shop"]', '""]', "field.levels", "empty"),
        ('"shop"]', '"a\\u0000b"]', "field.levels", "control characters"),
        ('"shop"]', f'"{"x" * 201}"]', "field.levels", "at most 200 characters, got 201"),
        ("missing = true", "max = 9", "field.max", "has no range"),
        ("missing = true", "percent = true", "field.percent", "not a fraction"),
        ("missing = true", 'riskier = "lower"', "field.riskier", "no order"),
        ("missing = true", "default = 3", "field.default", "expected text"),
        ("missing = true", 'default = "\\u0007"', "field.default", "control characters"),
        ("missing = true", "seen = [1]", "field.seen", "expected levels"),
        ('["low", "mid", "high"]', '["mid"]', "field.levels", "at least two levels"),
        ('default = "mid"', 'default = "top"', "field.default", "one of 'low', 'mid', 'high'"),
        ('"count"', '"amount"', "field.name", "a second field named 'amount'"),
        ('"count"', '"outcome"', "field.name", "the label's column"),
        ('"count"', '"number"', "field.name", "a role's column"),
        ('"count"', '"granted"', "field.name", "a role's column"),
        ('"count"', '""', "field.name", "empty"),
        ('"count"', '"a\\tb"', "field.name", "control characters"),
        ('"count"', f'"{"x" * 201}"', "field.name", "at most 200 characters, got 201"),
        ('id = "number"', 'id = "outcome"', "roles.id", "the label's column"),
        ('date = "granted"', 'date = "outcome"', "roles.date", "the label's column"),
        ('date = "granted"', 'exposure = "outcome"', "roles.exposure", "the label's column"),
        ('date = "granted"', 'date = "number"', "roles.date", "is the id's column"),
        ('date = "granted"', 'exposure = "number"', "roles.exposure", "is the id's column"),
        (
            'date = "granted"',
            'exposure = "channel"',
            "roles.exposure",
            "expected a number's column",
        ),
        (
            'date = "granted"',
            'exposure = "rank"',
            "roles.exposure",
            "a number's column, got 'rank'",
        ),
        ('date = "granted"', 'date = "a\\u0000"', "roles.date", "control characters"),
        ("{usual}", "{usualy}", "texts.higher", "{label}, {value}, {usual}, {more}, {less}"),
        ("{usual}", "{us{label}ual}", "texts.higher", "{label}, {value}, {usual}, {more}, {less}"),
        ("{usual}", "{", "texts.higher", "no placeholder but"),
        ('"{label}: {value}, not {usual}."', '" "', "texts.higher", "expected a sentence"),
    ],
)
def test_a_wrong_definition_is_refused_by_line_and_key(
    old: str, new: str, key: str, reason: str
) -> None:
    text = changed(old, new)
    message = refusal(text)
    # The last line that differs from the right one: the key's own, or that of the table's header.
    if "is missing" in reason:
        header = {"field": '[[field]]\nname = "count"', "label": "[label]"}[key.split(".")[0]]
        line = line_of(text, header)
    else:
        line = text.count("\n", 0, RIGHT.index(old) + len(new)) + 1
    assert message.startswith(f"x.toml, line {line}, key {key}: ")
    assert reason in message


def test_the_exposure_is_not_the_date() -> None:
    text = changed('date = "granted"', 'date = "granted"\nexposure = "granted"')
    line = line_of(text, "exposure")
    message = refusal(text)
    assert message == f"x.toml, line {line}, key roles.exposure: 'granted' is the date's column"


@pytest.mark.parametrize("column", ["amount", "count", "balance"])
def test_the_exposure_is_a_number_field_or_not_a_field(column: str) -> None:
    text = changed('date = "granted"', f'exposure = "{column}"')
    assert parse_definition(text, "x.toml").roles.exposure == column


@pytest.mark.parametrize(
    ("late", "on_time"),
    [("1", '"1"'), ('"1"', "1"), ("2.0", '"2"'), ("true", '"true"'), ('"false"', "false")],
)
def test_label_values_with_the_same_text_in_a_table_are_refused(late: str, on_time: str) -> None:
    text = changed("late = 1\non_time = 0", f"late = {late}\non_time = {on_time}")
    message = refusal(text)
    line = line_of(text, "on_time")
    assert message.startswith(
        f"x.toml, line {line}, key label.on_time: expected another value than late's, got "
    )


def test_a_field_has_its_own_words_for_a_comparison() -> None:
    text = changed("min = 0", 'min = 0\nmore = "oftener"\nless = "rarer"')
    definition = parse_definition(text, "x.toml")
    assert (definition["count"].more, definition["count"].less) == ("oftener", "rarer")
    assert (definition["amount"].more, definition["amount"].less) == ("higher", "lower")


def test_a_sentence_may_use_the_words_for_a_comparison() -> None:
    sentence = "{label}: {value}, {more}, not {less}, than {usual}."
    definition = parse_definition(changed("{label}: {value}, not {usual}.", sentence), "x.toml")
    assert definition.texts.higher == sentence


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_refused_with_a_hint(name: str) -> None:
    message = refusal(changed('"count"', f'"{name}"'))
    assert f"'{name}' is a reserved name, used in answers; rename the column" in message
    assert f"'{name}_given'" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "key model: this key is missing"),
        ('model = "m"', "key label: this key is missing"),
        (
            'model = "m"\nlabel = 3\nfield = []',
            "line 2, key label: expected a table, got a whole number",
        ),
        (RIGHT.split("[[field]]")[0], "key field: this key is missing"),
        (
            "field = []\n" + RIGHT.split("[[field]]")[0],
            "key field: expected at least one [[field]]",
        ),
        ("field = 3\n" + RIGHT.split("[[field]]")[0], "line 1, key field: expected a list"),
        ("[field]\nname = 'a'\n[label]", "key "),
    ],
)
def test_a_missing_part_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)


INLINE = """\
model = "m"
label = {column = "y", late = "bad", on_time = "good"}
field = [{name = "a", kind = "KIND", label = "A"}, {name = "b.c", kind = "number", label = "B"}]
"""
DOTTED = """\
model = "m"
label.column = "y"
label.late = "bad"
label.on_time = "good"
field = [
    {name = "a", kind = "KIND", label = "A"},
]
"""


@pytest.mark.parametrize("text", [INLINE, DOTTED])
def test_other_notations_of_toml_have_the_same_errors(text: str) -> None:
    assert parse_definition(text.replace("KIND", "whole"), "x.toml").fields[0].kind == "whole"
    assert "key field.kind: expected one of" in refusal(text.replace("KIND", "hole"))
    assert "key label.on_time: " in refusal(text.replace("good", "bad").replace("KIND", "whole"))
    assert "key label.ontime: no such key" in refusal(text.replace("on_time", "ontime"))


def test_line_breaks_inside_texts_do_not_shift_the_line() -> None:
    text = changed('model = "small"', 'model = "small" # a\u2028b\u0085c')
    text = text.replace('label = "Count"', 'label = "Count"\nhelp = "\u2028"\nunitt = ""')
    line = text.split("\n").index('unitt = ""') + 1
    assert f"line {line}, key field.unitt: no such key" in refusal(text)


@given(st.text(alphabet=st.characters(codec="utf-8")), st.integers(0, RIGHT.count("\n")))
def test_a_definition_with_any_inserted_line_is_read_or_refused(line: str, at: int) -> None:
    lines = RIGHT.split("\n")
    text = "\n".join([*lines[:at], line, *lines[at:]])
    with contextlib.suppress(DefinitionError):
        assert parse_definition(text, "x.toml").fields


def test_the_default_definition_is_peerloans() -> None:
    definition = default_definition()
    assert definition.names == (
        *("loan_amnt", "int_rate", "purpose", "grade", "annual_inc", "revol_util"),
        *("emp_length", "dti", "delinq_2yrs", "home_ownership"),
    )
    assert [field.kind for field in definition.fields] == [
        *("number", "number", "category", "ordered", "number", "number"),
        *("ordered", "number", "whole", "category"),
    ]
    assert [field.name for field in definition.fields if field.missing] == [
        "revol_util",
        "emp_length",
    ]
    assert definition.label == Label("is_late", 1, 0)
    assert definition.roles == Roles(id="loan_id", exposure="loan_amnt", horizon=(1, 184))
    assert definition["grade"].levels == tuple("ABCDEFG")
    assert definition["emp_length"].levels == (
        "< 1 year",
        "1 year",
        *(f"{years} years" for years in range(2, 10)),
        "10+ years",
    )
    assert len(definition["purpose"].levels) == 12
    assert set(definition["home_ownership"].levels) == {
        *("RENT", "OWN", "MORTGAGE", "ANY", "OTHER", "NONE")
    }
    ranges = {f.name: (f.min, f.above, f.max) for f in definition.fields if f.is_number}
    assert ranges == {
        "loan_amnt": (None, 0, None),
        "int_rate": (0, None, 1),
        "annual_inc": (None, 0, None),
        "revol_util": (0, None, None),
        "dti": (0, None, None),
        "delinq_2yrs": (0, None, None),
    }
    assert definition["loan_amnt"].seen_range == (1000, 40000)
    assert definition["int_rate"].seen_range == (0.0531, 0.3099)
    assert definition["revol_util"].seen_range == (0, 1.244)
    assert definition["dti"].seen_range == (0, 39.99)
    assert definition["delinq_2yrs"].seen_range == (0, 23)
    assert [f.name for f in definition.fields if f.percent] == ["int_rate", "revol_util"]


def test_a_definition_survives_json() -> None:
    for definition in (default_definition(), parse_definition(RIGHT, "x.toml")):
        again = msgspec.json.decode(msgspec.json.encode(definition), type=Definition)
        assert again == definition
        assert type(again.label.late) is type(definition.label.late)


@pytest.mark.parametrize("values", [(1, 0), (1.5, 2.0), ("bad", "good"), (True, False)])
def test_a_labels_values_keep_their_types_in_json(values: tuple[object, object]) -> None:
    label = Label("y", *values)  # type: ignore[arg-type]
    again = msgspec.json.decode(msgspec.json.encode(label), type=Label)
    assert again == label
    assert [type(again.late), type(again.on_time)] == [type(value) for value in values]


def test_json_contains_default_texts_for_later_releases() -> None:
    written = msgspec.json.decode(msgspec.json.encode(default_definition()))
    assert written["texts"] == msgspec.structs.asdict(ReasonTemplates())
    assert written["roles"]["horizon"] == [1, 184]


def test_wrong_json_is_refused_too() -> None:
    written = msgspec.json.decode(msgspec.json.encode(default_definition()))
    written["field"][0]["name"] = "id"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(written), type=Definition)


# What a promotion breaks

OLD = parse_definition(RIGHT, "x.toml")


def with_field(which: str, /, **settings: object) -> Definition:
    """OLD with one field changed."""
    fields = tuple(
        msgspec.structs.replace(field, **({"default": None} | settings))
        if field.name == which
        else field
        for field in OLD.fields
    )
    return msgspec.structs.replace(OLD, fields=fields)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (with_field("count", name="number_of"), "number_of: is new and required"),
        (
            with_field("count", kind="category", min=None),
            "count: kind changes from whole to category",
        ),
        (with_field("amount", kind="whole"), "amount: kind changes from number to whole"),
        (
            with_field("channel", kind="ordered"),
            "channel: kind changes from category to ordered",
        ),
        (with_field("channel", missing=False), "channel: may no longer be missing"),
        (with_field("rank", levels=("low", "high")), "rank: drops the level 'mid'"),
        (
            with_field("amount", max=999.0),
            "amount: the range narrows from above 0, at most 1,000 to above 0, at most 999",
        ),
        (
            with_field("amount", above=1.0),
            "amount: the range narrows from above 0, at most 1,000 to above 1, at most 1,000",
        ),
        (
            with_field("count", above=0.0),
            "count: the range narrows from at least 0 to above 0",
        ),
        (
            with_field("count", max=9.0),
            "count: the range narrows from at least 0 to at least 0, at most 9",
        ),
        (
            with_field("amount", min=0.5),
            "amount: the range narrows from above 0, at most 1,000 to at least 0.5, at most 1,000",
        ),
    ],
)
def test_a_breaking_change_is_named(new: Definition, reason: str) -> None:
    assert breaking_changes(OLD, new) == [reason]


def test_a_first_bound_breaks() -> None:
    assert breaking_changes(one_field(), one_field(min=0.0)) == [
        "a: the range narrows from any to at least 0"
    ]


def test_a_roles_column_that_becomes_a_field_breaks() -> None:
    """Until then it may hold anything: nobody looks at it."""
    old = msgspec.structs.replace(OLD, roles=Roles(date="granted"))
    field = Field("granted", "number", "Granted", missing=True)
    new = msgspec.structs.replace(OLD, fields=(*OLD.fields, field), roles=Roles())
    assert breaking_changes(old, new) == ["granted: had a role (such as id) and becomes a field"]


def test_every_breaking_change_is_named_at_once() -> None:
    reasons = breaking_changes(default_definition(), OLD)
    assert reasons == [f"{name}: is new and required" for name in ("amount", "count", "rank")]


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        msgspec.structs.replace(OLD, fields=OLD.fields[1:]),  # a field less
        msgspec.structs.replace(
            OLD, fields=(*OLD.fields, Field("new", "number", "New", missing=True))
        ),
        with_field("amount", max=2000.0),
        with_field("amount", max=None),
        with_field("amount", above=None, min=0.0),
        with_field("count", kind="number"),
        with_field("count", missing=True),
        with_field("count", min=-5.0),
        with_field("rank", levels=("lowest", "low", "mid", "high")),
        with_field("rank", levels=("high", "mid", "low")),
        with_field("rank", kind="category"),
        with_field("channel", levels=()),
        with_field("amount", label="Other", help="Else", unit="euros"),
    ],
)
def test_compatible_changes_are_not_breaking(new: Definition) -> None:
    assert breaking_changes(OLD, new) == []


# Numbers and texts for people


@pytest.mark.parametrize(
    ("settings", "value", "shown"),
    [
        ({}, None, "not given"),
        ({}, 1234567.0, "1,234,567"),
        ({}, 1234.5, "1,234.5"),
        ({}, 0.0, "0"),
        ({}, -0.0, "0"),
        ({}, -12.25, "-12.25"),
        ({}, 0.0001, "0.0001"),
        ({}, 1e300, "1e+300"),
        ({"unit": "euros"}, 12.0, "12 euros"),
        ({"percent": True}, 0.1306, "13.06 %"),
        ({"percent": True}, 0.07, "7 %"),
        ({"percent": True, "unit": "a year"}, 0.29, "29 % a year"),
    ],
)
def test_a_value_is_formatted_for_people(
    settings: dict[str, object], value: float | None, shown: str
) -> None:
    assert one_field(**settings).fields[0].show(value) == shown


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "a number"),
        ({"kind": "whole", "min": 0.0}, "a whole number, at least 0"),
        ({"above": 0.0, "max": 40000.0}, "a number, above 0, at most 40,000"),
        ({"unit": "euros", "missing": True}, "a number (euros), or nothing"),
        # a bound is said exactly: "at least 0.05" would be wrong of 0.0531
        ({"min": 0.0531, "max": 0.3099}, "a number, at least 0.0531, at most 0.3099"),
        ({"min": 123456.789}, "a number, at least 123,456.789"),
        ({"min": 5.0, "above": 0.0}, "a number, at least 5"),
        ({"min": 0.0, "above": 0.0}, "a number, above 0"),
        (
            {"percent": True, "min": 0.0, "max": 1.0},
            "a fraction, at least 0, at most 1: 0.1306 for 13.06 %",
        ),
        ({"kind": "category"}, "text of 1 to 200 characters without control characters"),
        ({"kind": "ordered", "levels": ("a", "b's")}, "one of 'a', \"b's\""),
    ],
)
def test_the_expected_value_is_described_in_words(
    settings: dict[str, object], expected: str
) -> None:
    assert one_field(**settings).fields[0].expected == expected


@given(st.floats(-1e300, 1e300))
def test_any_number_can_be_shown(value: float) -> None:
    shown = format_number(value)
    back = parse_number(shown.replace(",", ""))
    assert back is not None
    assert back == pytest.approx(value, rel=6e-3, abs=6e-3)
    assert shown not in ("", "-", "-0")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_any_value_can_be_shown(value: object) -> None:
    shown = show_value(value)
    shown.encode()
    assert len(shown) < 100
    assert "\n" not in shown


@pytest.mark.parametrize("text", ["x" * 70, "ü" * 70, "\x00" * 70, "'" * 70])
def test_a_long_text_is_cut_and_its_characters_are_counted(text: str) -> None:
    shown = show_value(text)
    assert shown.endswith("… (70 characters)")
    assert len(shown) < 100


def test_values_without_a_repr_can_be_shown() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    for value in (nested, 10**5000, [10**5000], "\ud800", {"\udfff": "\x00"}):
        shown = show_value(value)
        shown.encode()
        assert len(shown) < 100
