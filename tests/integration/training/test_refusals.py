"""Tables and options that `peerloan train` refuses with one line, and unusual tables that it takes.

Nothing is published after a refusal.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Call
from peerloan.sample_data import batches

Rows = list[dict[str, Any]]
LOANS = 600


@pytest.fixture(scope="module")
def sampled() -> Rows:
    """A small sample, of which every eighth loan is late."""
    (batch,) = batches(LOANS, seed=5)
    rows: Rows = batch.to_pylist()
    for place, row in enumerate(rows):
        row["is_late"] = int(place % 8 == 0)
    return rows


@pytest.fixture
def rows(sampled: Rows) -> Rows:
    """A copy for one test."""
    return [dict(row) for row in sampled]


def write(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def published(tmp_path: Path) -> list[Path]:
    """List the store's folder of versions, with drafts."""
    folder = tmp_path / "store" / "versions"
    return list(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def refusal(call: Call, tmp_path: Path) -> Callable[..., str]:
    """Train on rows, which must fail; returns the message, which must be one line."""

    def train(rows: Rows, *options: object, code: int = 1) -> str:
        book = write(tmp_path / "book.csv", rows)
        done = call("train", book, "--quick", *options)
        assert done.code == code, done.err
        assert "Traceback" not in done.err
        assert done.out == ""
        assert published(tmp_path) == []
        # Progress may be printed before it.
        messages = [line for line in done.err.splitlines() if line.startswith("peerloan: ")]
        assert len(messages) == 1
        assert done.err.endswith(messages[0] + "\n")
        return messages[0].removeprefix("peerloan: ").removeprefix(f"{book}: ")

    return train


Refusal = Callable[..., str]


@pytest.mark.parametrize("late", [0, 19])
def test_too_few_late_loans(rows: Rows, refusal: Refusal, late: int) -> None:
    for place, row in enumerate(rows):
        row["is_late"] = int(place < late)
    message = refusal(rows)
    assert message == f"expected at least 20 loans that are late, given {late} of {LOANS}"


@pytest.mark.longer
def test_fifty_rows(rows: Rows, refusal: Refusal) -> None:
    half = [row | {"is_late": place % 2} for place, row in enumerate(rows[:50])]
    for fifty in (rows[:50], half):
        assert refusal(fifty) == "expected at least 100 loans, given 50"


def test_a_label_of_another_value(rows: Rows, refusal: Refusal) -> None:
    rows[41]["is_late"] = 2
    message = refusal(rows)
    assert message.startswith("row 42, is_late: expected 1 (late) or 0 (on time), given 2")
    assert message.endswith("; `peerloan check` names every bad row")


def test_a_column_of_text_where_numbers_belong(rows: Rows, refusal: Refusal) -> None:
    message = refusal([row | {"annual_inc": "plenty"} for row in rows])
    assert message.startswith("row 1, annual_inc: expected ")
    assert "plenty" in message


def test_constant_columns(rows: Rows, refusal: Refusal) -> None:
    constant = {"dti": 10.5, "purpose": "credit_card", "revol_util": ""}
    message = refusal([row | constant for row in rows])
    assert message == (
        "expected values that differ, given the same one in every row of purpose "
        "('credit_card'), dti (10.5); remove such a field from the definition"
    )


def test_a_group_without_a_column(rows: Rows, refusal: Refusal) -> None:
    assert refusal(rows, "--group", "county") == "no column 'county' to group by"


def test_a_later_book_that_lacks_a_column(rows: Rows, refusal: Refusal, tmp_path: Path) -> None:
    without = [{name: row[name] for name in row if name != "dti"} for row in rows]
    later = write(tmp_path / "later.csv", without)
    message = refusal(rows, "--later", later)
    assert message == f"{later}: expected the column dti, which is not there"


def test_the_recalibration_of_an_unknown_version(rows: Rows, call: Call, tmp_path: Path) -> None:
    book = write(tmp_path / "book.csv", rows)
    done = call("train", book, "--recalibrate", "20260101T000000Z-additive")
    assert done.code == 1
    assert done.err.startswith("peerloan: ")
    assert "20260101T000000Z-additive" in done.err
    assert len(done.err.splitlines()) == 1
    assert published(tmp_path) == []


@pytest.mark.parametrize("aim", ["cost=-1", "recall=1.5"])
def test_an_impossible_aim(rows: Rows, refusal: Refusal, aim: str) -> None:
    name, value = aim.split("=")
    message = refusal(rows, "--aim", aim)
    assert message.startswith(f"{name}: expected a ")
    assert message.endswith(f"given {value}")


@pytest.mark.parametrize("options", ["--aim profit=3", "--recalibrate any --quick"])
def test_wrong_options(rows: Rows, call: Call, tmp_path: Path, options: str) -> None:
    done = call("train", write(tmp_path / "book.csv", rows), *options.split())
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert published(tmp_path) == []


# Unusual tables


@pytest.fixture
def taken(call: Call, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Train on rows, which must work; returns the printed candidates."""

    def train(rows: Rows, *options: object) -> list[dict[str, Any]]:
        done = call("train", write(tmp_path / "book.csv", rows), "--quick", "--json", *options)
        assert done.code == 0, done.err
        assert "Warning" not in done.err
        found: list[dict[str, Any]] = json.loads(done.out)["candidates"]
        names = {path.name for path in published(tmp_path)}
        assert names == {each["version"] for each in found}
        return found

    return train


Taken = Callable[..., list[dict[str, Any]]]


@pytest.mark.longer
def test_few_late_loans_among_many(taken: Taken) -> None:
    (batch,) = batches(3_000, seed=6)
    rows: Rows = batch.to_pylist()
    for place, row in enumerate(rows):
        row["is_late"] = int(place % 120 == 0)
    # Five of 25 in each fold.
    assert len(taken(rows)) == 4


@pytest.mark.longer
def test_fields_without_information(rows: Rows, taken: Taken, call: Call) -> None:
    # Late loans and others have each value equally often.
    whole_numbers, fractions = (
        ("loan_amnt", "annual_inc", "delinq_2yrs"),
        ("int_rate", "revol_util", "dti"),
    )
    texts = {name: (rows[0][name], "other") for name in ("purpose", "home_ownership")}
    texts |= {"grade": ("A", "B"), "emp_length": ("1 year", "2 years")}
    pairs: dict[str, tuple[Any, Any]] = dict.fromkeys(whole_numbers, (1, 2)) | dict.fromkeys(
        fractions, (0.1, 0.2)
    )
    found = taken(
        [
            row | {name: pair[place // 8 % 2] for name, pair in (pairs | texts).items()}
            for place, row in enumerate(rows)
        ]
    )
    for each in found:
        assert 0.3 < each["metrics"]["auc"] < 0.7
        done = call("models", "verify", each["version"])
        assert done.code == 0, done.err


@pytest.mark.longer
def test_empty_columns_and_columns_with_one_value_or_missing(
    rows: Rows, taken: Taken, call: Call, tmp_path: Path
) -> None:
    given = [
        row | {"revol_util": 0.5 if place % 3 else "", "emp_length": ""}
        for place, row in enumerate(rows)
    ]
    found = taken(given)
    assert len(found) == 4
    done = call("train", tmp_path / "book.csv", "--quick", "--candidate", "logistic")
    notes = [line for line in done.err.splitlines() if "is missing in every loan" in line]
    assert notes == ["note: emp_length: is missing in every loan, so no version can use it"]
    for each in found:
        done = call("models", "verify", each["version"])
        assert done.code == 0, done.err


def oversampled(path: Path, loans: int, times: int) -> Path:
    """Write a sample without ids, with each late loan repeated."""
    (batch,) = batches(loans, seed=8)
    rows = [{k: v for k, v in row.items() if k != "loan_id"} for row in batch.to_pylist()]
    late = [row for row in rows if str(row["is_late"]) == "1"]
    return write(path, rows + late * (times - 1))


@pytest.mark.longer
def test_equal_rows_are_reported_and_do_not_affect_figures(call: Call, tmp_path: Path) -> None:
    book = oversampled(tmp_path / "book.csv", 2_000, 30)
    (fresh,) = batches(2_000, seed=99)
    later = write(tmp_path / "later.csv", fresh.to_pylist())
    checked = call("check", book)
    explored = call("explore", book, "-o", tmp_path / "explored.html")
    trained = call("train", book, "--quick", "--candidate", "boosted", "--later", later, "--json")
    assert (checked.code, explored.code, trained.code) == (0, 0, 0)
    summary = json.loads(trained.out)
    (only,) = summary["candidates"]
    # If a model were evaluated on copies of its loans, the AUC would be 0.98 or more.
    assert only["metrics"]["auc"] < 0.8
    assert abs(only["metrics"]["auc"] - only["metrics"]["later_auc"]) < 0.1
    report = (tmp_path / "store" / "versions" / only["version"] / "report.html").read_text("utf-8")
    for output in (checked.out, trained.err, summary["doubts"][0], report):
        assert "equal an earlier one in every field" in output
    assert "equal an earlier one in every field" in (tmp_path / "explored.html").read_text("utf-8")


def test_few_loans_that_are_repeated_often_are_refused(
    refusal: Callable[..., str], rows: Rows
) -> None:
    for place, row in enumerate(rows):
        row["is_late"] = int(place < 12)
    line = refusal(rows + rows[:12] * 20)
    assert "expected at least 20 different loans that are late, given 12" in line
    assert "240 of their 252 rows" in line


def test_a_later_book_of_loans_that_were_trained_on_is_refused(
    refusal: Callable[..., str], rows: Rows, tmp_path: Path
) -> None:
    line = refusal(rows, "--later", write(tmp_path / "later.csv", rows[:400]))
    assert "later.csv: expected a book of other loans, given 400 of 400 rows" in line
