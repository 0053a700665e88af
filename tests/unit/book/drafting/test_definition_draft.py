"""A drafted definition is valid, fits its table, and has its doubts as comments."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import BookError, check_book, draft_definition, open_book
from peerloan.book.drafting.level_order import find_order
from peerloan.loan import Definition, parse_definition

ROWS = 60
LABEL = [("good", "good", "bad")[i % 3] for i in range(ROWS)]


def write(tmp_path: Path, columns: Mapping[str, Any]) -> Path:
    path = tmp_path / "Other Lender.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def draft(
    tmp_path: Path, columns: dict[str, list[Any]], late: str | None = None
) -> tuple[str, Definition]:
    """The draft for these columns beside a plain one and the label 'state'."""
    plain = {"plain": [i % 7 + 0.5 for i in range(ROWS)], "state": LABEL}
    book = open_book(write(tmp_path, plain | columns))
    text = draft_definition(book, "state", late)
    definition = parse_definition(text, "the draft")
    report = check_book(book, definition, label=True)
    assert report.ok, report.lines()
    return text, definition


def test_numbers(tmp_path: Path) -> None:
    text, definition = draft(
        tmp_path,
        {
            "amount": [1000 + 13 * (i * 7 % 50) for i in range(ROWS)],
            "change": [(i * 7 % 50) - 10.5 for i in range(ROWS)],
            "share": [("NA", 0.25, 0.5, 0.75)[i % 4] for i in range(ROWS)],
            "code": [i % 3 for i in range(ROWS)],
        },
    )
    amount, change, share, code = (definition[n] for n in ("amount", "change", "share", "code"))
    assert (amount.kind, amount.min, amount.seen, amount.missing) == (
        "whole",
        0,
        (1000, 1637),
        False,
    )
    assert (change.kind, change.min, change.seen) == ("number", None, (-10.5, 38.5))
    assert (share.kind, share.missing, share.default) == ("number", True, 0.5)
    assert code.kind == "whole"
    assert "# doubt: a fraction? Then percent = true" in text
    assert "# doubt: only the values 0, 1, 2: a number or a code?" in text


def test_levels_are_sorted_by_frequency(tmp_path: Path) -> None:
    _, definition = draft(
        tmp_path, {"town": [("Ulm", "", "Köln", "Ulm")[i % 4] for i in range(ROWS)]}
    )
    town = definition["town"]
    assert (town.kind, town.levels, town.missing, town.default) == (
        "category",
        ("Ulm", "Köln"),
        True,
        "Ulm",
    )


@pytest.mark.parametrize(
    "levels",
    [
        ["< 1 year", *(f"{n} years" for n in range(2, 10)), "10+ years"],
        ["A", "B", "C", "D"],
        ["A1", "A2", "B1"],
        ["low", "medium", "high"],
        ["0-10", "10-20", "20-30", "30+"],
        ["under 1,000", "1,000 to 2,000", "more than 2,000"],
        ["<500", "500", ">500"],
    ],
)
def test_obvious_orders_are_found(tmp_path: Path, levels: list[str]) -> None:
    shuffled = random.Random(1).sample(levels, len(levels))
    text, definition = draft(tmp_path, {"x": [shuffled[i % len(levels)] for i in range(ROWS)]})
    assert definition["x"].kind == "ordered"
    assert list(definition["x"].levels) == levels
    assert "# doubt: the order is guessed" in text


@pytest.mark.parametrize(
    "levels",
    [
        ["RENT", "OWN", "MORTGAGE"],
        ["B", "C", "D"],
        ["1 year", "2 months", "3 years"],
        ["< 0 DM", "none", ">= 200 DM"],
        ["A", "B1", "C"],
        ["yes", "no"],
    ],
)
def test_other_levels_have_no_order(tmp_path: Path, levels: list[str]) -> None:
    _, definition = draft(tmp_path, {"x": [levels[i % len(levels)] for i in range(ROWS)]})
    assert definition["x"].kind == "category"
    assert sorted(definition["x"].levels) == sorted(levels)


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("x", ["same"] * ROWS, "every row has the value 'same'"),
        ("x", [""] * ROWS, "no row has a value"),
        (
            "x",
            [f"{i % 9 + 0.5}%" for i in range(ROWS)],
            "write them as fractions (0.1306 for 13.06%)",
        ),
        ("x", [f"${i % 9},000" for i in range(ROWS)], "write them plainly"),
        ("x", [f"{i % 9},5" for i in range(ROWS)], "write them plainly"),
        ("x", [f"{i % 28 + 1}.12.2024" for i in range(ROWS)], "it contains dates such as"),
        ("probability", [i % 7 + 0.5 for i in range(ROWS)], "for example to 'probability_given'"),
        ("a\x01b", [i % 7 + 0.5 for i in range(ROWS)], "its name can't be a field's"),
        ("n" * 201, [i % 7 + 0.5 for i in range(ROWS)], "its name can't be a field's"),
        ("customer_id", [i % 9 for i in range(ROWS)], "it is named like an id"),
        ("x", ["a\x00"] * 30 + ["b\x00"] * 30, "no text without control characters"),
    ],
)
def test_columns_that_are_not_features_are_left_out_with_the_reason(
    tmp_path: Path, name: str, cells: list[Any], reason: str
) -> None:
    text, definition = draft(tmp_path, {name: cells})
    assert definition.names == ("plain",)
    (line,) = [line for line in text.splitlines() if line.startswith("# left out: ")]
    assert reason in line


def test_free_text_is_left_out(tmp_path: Path) -> None:
    columns = {
        "words": [f"some words {i % 150}" for i in range(300)],
        "x": [i % 2 + 0.5 for i in range(300)],
        "y": [i % 2 for i in range(300)],
    }
    text = draft_definition(open_book(write(tmp_path, columns)), "y")
    assert "# left out: words: it has more than 100 different texts" in text
    assert parse_definition(text, "the draft").names == ("x",)


def test_ids_and_dates_become_roles_once(tmp_path: Path) -> None:
    text, definition = draft(
        tmp_path,
        {
            "Nr.": [f"K-{i:04d}" for i in range(ROWS)],
            "row": list(range(ROWS)),
            "opened": [f"2024-02-{i % 28 + 1:02d}" for i in range(ROWS)],
            "closed": [f"2025-02-{i % 28 + 1:02d}" for i in range(ROWS)],
        },
    )
    assert (definition.roles.id, definition.roles.date) == ("Nr.", "opened")
    lines = text.splitlines()
    for line, doubt in (
        (
            'id = "Nr."',
            "it differs in every row, so it is taken for the loan's id and is not a feature",
        ),
        (
            'date = "opened"',
            "it contains dates, so it is taken for the loan's date and is not a feature",
        ),
    ):
        assert lines[lines.index(line) - 1] == f"# doubt: {doubt}"
    assert definition.names == ("plain",)
    assert text.count("# left out:") == 2


def test_wrong_cells_are_doubted(tmp_path: Path) -> None:
    columns = {"x": [i % 9 + 0.5 for i in range(ROWS - 1)] + ["unknown"], "state": LABEL}
    text = draft_definition(open_book(write(tmp_path, columns)), "state")
    assert (
        "# doubt: 1 row has a value that is not a number, such as 'unknown'; it is refused" in text
    )
    assert parse_definition(text, "the draft")["x"].kind == "number"


@pytest.mark.parametrize(
    ("values", "late", "expected"),
    [
        (["good", "bad"], None, ("bad", "good")),
        (["bad", "good"], "good", ("good", "bad")),
        (["0", "1"], None, (1, 0)),
        (["0", "1"], "1.0", (1, 0)),
        (["paid", "Charged Off"], None, ("Charged Off", "paid")),
        (["True", "False"], None, (True, False)),
        (["a", "b", "b", "b"], None, ("a", "b")),
        (["1.5", "2.5", "2.5"], None, (1.5, 2.5)),
    ],
)
def test_which_label_means_late(
    tmp_path: Path, values: list[str], late: str | None, expected: tuple[Any, Any]
) -> None:
    cells = [values[i % len(values)] for i in range(ROWS)]
    text, definition = draft(tmp_path, {"state": cells}, late)
    assert (definition.label.late, definition.label.on_time) == expected
    assert ("is taken to mean late" in text) == (late is None)


@pytest.mark.parametrize(
    ("label", "late", "reason"),
    [
        ("State", None, "expected a column State, got none (did you mean state?)"),
        ("plain", None, "expected two values of the label, got 0.5, 1.5, 2.5, 3.5, 4.5, …"),
        ("state", "worse", 'expected late to be "good" or "bad", got \'worse\''),
        ("one", None, 'expected two values of the label, got "x"'),
        ("none", None, "expected two values of the label, got none"),
    ],
)
def test_an_invalid_label_is_refused(
    tmp_path: Path, label: str, late: str | None, reason: str
) -> None:
    columns: dict[str, list[Any]] = {
        "plain": [i % 7 + 0.5 for i in range(ROWS)],
        "one": ["x"] * ROWS,
        "none": [""] * ROWS,
        "state": LABEL,
    }
    with pytest.raises(BookError) as caught:
        draft_definition(open_book(write(tmp_path, columns)), label, late)
    assert reason in str(caught.value)


def test_a_table_without_a_feature_is_refused(tmp_path: Path) -> None:
    book = open_book(write(tmp_path, {"x": ["same"] * ROWS, "state": LABEL}))
    with pytest.raises(BookError, match="expected a column that can be a field, got none"):
        draft_definition(book, "state")


def test_without_a_feature_the_role_columns_are_named(tmp_path: Path) -> None:
    columns = {
        "nr": [f"K-{i:04d}" for i in range(ROWS)],
        "opened": [f"2024-02-{i % 28 + 1:02d}" for i in range(ROWS)],
        "x": ["same"] * ROWS,
        "state": LABEL,
    }
    with pytest.raises(BookError) as caught:
        draft_definition(open_book(write(tmp_path, columns)), "state")
    reasons = str(caught.value).partition("expected a column that can be a field, got none: ")[2]
    assert "left out: x: every row has the value 'same'" in reasons
    assert "nr: taken for the loans' id" in reasons
    assert "opened: taken for the loans' date" in reasons


def test_a_column_of_one_value_and_unreadable_cells_is_not_constant(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    cells = [b"\xff" if i == 3 else b"same" for i in range(ROWS)]
    rows = [b"%s,%s" % (cell, late.encode()) for cell, late in zip(cells, LABEL, strict=True)]
    path.write_bytes(b"x,state\n" + b"\n".join(rows))
    text = draft_definition(open_book(path), "state")
    assert parse_definition(text, "the draft")["x"].levels == ("same",)
    assert "# doubt: 1 row has a text that is too long, not UTF-8 or has control" in text
    assert "every row has the value" not in text


@pytest.mark.parametrize(
    ("broken", "doubt"),
    [
        ("1\n", "1 row has too many or too few cells; training refuses them"),
        ("1\n2,3,4,5\n", "2 rows have too many or too few cells; training refuses them"),
    ],
)
def test_rows_with_other_cell_counts_are_doubted(tmp_path: Path, broken: str, doubt: str) -> None:
    path = write(tmp_path, {"plain": [i % 7 + 0.5 for i in range(ROWS)], "state": LABEL})
    whole = draft_definition(open_book(path), "state")
    assert "cells" not in whole
    path.write_text(path.read_text() + broken)
    text = draft_definition(open_book(path), "state")
    assert text.splitlines().count(f"# doubt: {doubt}") == 1
    assert parse_definition(text, "the draft") == parse_definition(whole, "the draft")


def test_another_separator_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;state\n1;good\n2;bad\n")
    with pytest.raises(BookError, match="separated by ';', expected ','"):
        draft_definition(open_book(tmp_path / "t.csv"), "state")


def test_types_of_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "flag": pa.array([i % 2 == 0 for i in range(ROWS)]),
            "when": pa.array([18_000 + i % 9 for i in range(ROWS)], pa.int32()).cast(pa.date32()),
            "level": pa.array([("x", "y", None)[i % 3] for i in range(ROWS)]).dictionary_encode(),
            "n": pa.array([(1, 2, None)[i % 3] for i in range(ROWS)]),
            "list": pa.array([[i] for i in range(ROWS)]),
            "was_late": pa.array([i % 9 == 0 for i in range(ROWS)]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    book = open_book(tmp_path / "t.parquet")
    definition = parse_definition(draft_definition(book, "was_late"), "the draft")
    assert definition.names == ("flag", "level", "n")
    assert set(definition["flag"].levels) == {"true", "false"}
    assert (definition["n"].kind, definition["n"].missing) == ("whole", True)
    assert definition.roles.date == "when"
    assert definition.label.late is True
    assert check_book(book, definition).ok


def texts(without: str) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"], exclude_characters=without)
    return st.text(characters, max_size=8)


@given(
    names=st.lists(texts(without="\r\n\0").filter(str.strip), unique=True, max_size=4),
    cells=st.lists(texts(without=""), min_size=4, max_size=4),
)
def test_any_names_and_levels_make_a_definition(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], cells: list[str]
) -> None:
    columns: dict[str, list[Any]] = dict.fromkeys(names, cells * 2)
    columns["plain"] = list("abcabcab")
    columns["label ü"] = ["x", "y"] * 4
    book = open_book(write(tmp_path_factory.mktemp("draft"), columns))
    definition = parse_definition(draft_definition(book, "label ü"), "the draft")
    assert set(definition.names) <= set(columns)


def test_the_guess_of_the_late_value_is_at_the_top(tmp_path: Path) -> None:
    text, _ = draft(tmp_path, {"state": [("1", "1", "2")[i % 3] for i in range(ROWS)]})
    first = text.splitlines()[0]
    assert first.startswith("# doubt: state: 2 is taken to mean late (20 of 60 loans, 33.33 %)")
    assert "the rarer value" in first
    text, _ = draft(tmp_path, {"state": [("0", "1", "1")[i % 3] for i in range(ROWS)]}, late="1")
    assert text.splitlines()[0].startswith("# doubt: state: 1 means late, and most loans have it")
    text, _ = draft(tmp_path, {"state": [("0", "0", "1")[i % 3] for i in range(ROWS)]}, late="1")
    assert text.startswith("# Drafted from ")


def test_a_label_of_more_than_two_values_is_refused_with_advice(tmp_path: Path) -> None:
    columns = {
        "x": [i % 7 + 0.5 for i in range(ROWS)],
        "state": [("Current", "Fully Paid", "Late")[i % 3] for i in range(ROWS)],
    }
    for late in (None, "Late"):
        with pytest.raises(BookError, match="make a column with one value for loans that are late"):
            draft_definition(open_book(write(tmp_path, columns)), "state", late)


def test_codes_for_missing_are_doubted_and_not_in_the_seen_range(tmp_path: Path) -> None:
    text, definition = draft(
        tmp_path, {"income": [99_999_999 if i % 6 == 0 else 100 + i for i in range(ROWS)]}
    )
    assert "# doubt: 99,999,999 in 10 rows (16.67 %), where the other values are 101 to 159" in text
    assert definition["income"].seen == (101, 159)
    assert definition["income"].default == 130
    report = check_book(open_book(tmp_path / "Other Lender.csv"), definition)
    assert [doubt for doubt in report.doubts if "99,999,999 in 10 rows" in doubt]


def test_na_is_not_a_level(tmp_path: Path) -> None:
    text, definition = draft(
        tmp_path, {"home": [("RENT", "OWN", "NA", "null")[i % 4] for i in range(ROWS)]}
    )
    assert (definition["home"].levels, definition["home"].missing) == (("RENT", "OWN"), True)
    assert "# doubt: 'NA' in 15 rows, 'null' in 15 rows: does it stand for missing?" in text
    report = check_book(open_book(tmp_path / "Other Lender.csv"), definition)
    assert len([doubt for doubt in report.doubts if "leave the cell empty" in doubt]) == 2
    listed = text.replace('levels = ["RENT", "OWN"]', 'levels = ["RENT", "OWN", "NA", "null"]')
    report = check_book(open_book(tmp_path / "Other Lender.csv"), parse_definition(listed, "x"))
    assert not report.doubts, "who lists it says that it is a level"


def test_thousands_separators_are_doubted(tmp_path: Path) -> None:
    text, _ = draft(tmp_path, {"amount": [f"{i % 30 + 1}.{i % 10}00" for i in range(ROWS)]})
    assert (
        "# doubt: the numbers are written as 1.000, which is read as 1; if it means 1,000" in text
    )
    text, _ = draft(
        tmp_path, {"ratio": [f"{i % 30 + 1}.{i * 37 % 900 + 51:03}" for i in range(ROWS)]}
    )
    assert "are written as" not in text


def test_a_cell_full_of_spaces_is_matched_in_linear_time(tmp_path: Path) -> None:
    """A pattern whose parts could each take the spaces would try every division of them."""
    book = tmp_path / "book.csv"
    cell = f"1{' ' * 20_000}x"
    rows = [f"{cell},{i // 2},{'yes' if i % 5 else 'no'}" for i in range(20)]
    book.write_text("\n".join(["note,income,bad", *rows]) + "\n")

    assert 'name = "income"' in draft_definition(open_book(book), "bad", "yes")
    levels = [f"{number}{' ' * 20_000}x!" for number in range(1, 4)]
    assert find_order(levels) is None
