"""The report of a checked book: wrong rows, and doubts about unusual values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from peerloan.book import BookError, BookReport, check_book, open_book
from peerloan.loan import default_definition, parse_definition

GOOD: dict[str, Any] = {
    "loan_amnt": 12000,
    "int_rate": 0.2039,
    "purpose": "credit_card",
    "grade": "D",
    "annual_inc": 42000.0,
    "revol_util": 0.647,
    "emp_length": "10+ years",
    "dti": 14.46,
    "delinq_2yrs": 0,
    "home_ownership": "RENT",
    "is_late": 0,
}


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    """So many good loans, no column constant; `changes` hold for all of them."""
    varied = [
        GOOD
        | {
            "loan_amnt": 1000 + i,
            "int_rate": (0.1, 0.2)[i % 2],
            "purpose": ("car", "other")[i % 2],
            "grade": "ABC"[i % 3],
            "annual_inc": 20_000 + i,
            "revol_util": (0.5, 0.6)[i % 2],
            "emp_length": (None, "1 year")[i % 2],
            "dti": (4, 5)[i % 2],
            "delinq_2yrs": i % 2,
            "home_ownership": ("RENT", "OWN")[i % 2],
            "is_late": int(i % 10 == 0),
        }
        for i in range(count)
    ]
    return [row | changes for row in varied]


def check(tmp_path: Path, loans: list[dict[str, Any]], **options: Any) -> BookReport:
    path = tmp_path / "book.csv"
    lines = [",".join(loans[0])]
    lines += [",".join("" if v is None else str(v) for v in loan.values()) for loan in loans]
    path.write_text("\n".join(lines), encoding="utf-8")
    report = check_book(open_book(path), default_definition(), **options)
    assert json.loads(json.dumps(report.to_json()))["ok"] == report.ok
    return report


def test_a_good_book(tmp_path: Path) -> None:
    report = check(tmp_path, rows(100))
    assert report.ok
    assert (report.rows, report.bad_rows, report.late) == (100, 0, 10)
    assert report.missing["emp_length"] == 50
    assert sum(report.missing.values()) == 50
    assert report.doubts == report.notes == []
    assert report.lines() == [
        f"{tmp_path}/book.csv: 100 loans, 10 late (10 %)",
        "missing: emp_length: 50 (50 %)",
        "no problems",
    ]


def test_a_book_without_label_can_be_checked(tmp_path: Path) -> None:
    loans = [{k: v for k, v in row.items() if k != "is_late"} for row in rows(3)]
    assert check(tmp_path, loans).late is None
    with pytest.raises(BookError, match="expected the column is_late"):
        check(tmp_path, loans, label=True)


def test_wrong_values_are_named_by_row_and_field(tmp_path: Path) -> None:
    loans = rows(5)
    loans[1]["int_rate"] = "13.06%"
    loans[1]["grade"] = "H"
    loans[3]["is_late"] = 2
    loans[4]["dti"] = None
    report = check(tmp_path, loans)
    assert not report.ok
    assert report.bad_rows == 3
    found = [(p.loan, p.field, p.given) for group in report.groups for p in group.examples]
    assert found == [
        (2, "int_rate", "'13.06%'"),
        (2, "grade", "'H'"),
        (5, "dti", "nothing"),
        (4, "is_late", "2"),
    ]
    assert report.missing["dti"] == 1
    assert "0.1306 for 13.06 %" in report.groups[0].expected
    text = "\n".join(report.lines())
    assert "int_rate: 1 row: expected a fraction a year" in text
    assert "  row 2: '13.06%'" in text
    assert text.endswith("3 of 5 rows have problems")


def test_many_wrong_rows_are_shown_as_ranges(tmp_path: Path) -> None:
    loans = rows(100)
    for i in [*range(10), *range(30, 60), 70, *range(80, 100)]:
        loans[i]["grade"] = "?"
    group = check(tmp_path, loans).groups[0]
    assert group.count == 61
    assert group.ranges == [(1, 10), (31, 60), (71, 71), (81, 100)]
    assert [p.loan for p in group.examples] == [*range(1, 11), *range(31, 41)]
    assert "  and rows 41–60, 71, 81–100" in check(tmp_path, loans).lines()


def test_ranges_continue_across_parts(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("x,y\n" + "?,0\n" * 70_000)
    (tmp_path / "2.csv").write_text("x,y\n" + "?,0\n1\n" * 5)
    definition = parse_definition(
        'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n'
        '[[field]]\nname = "x"\nkind = "number"\nlabel = "X"\n',
        "test",
    )
    report = check_book(open_book(tmp_path), definition)
    by_field = {group.field: group for group in report.groups}
    assert by_field["x"].ranges == [(1, 70_001), *((n, n) for n in range(70_003, 70_010, 2))]
    assert by_field["(row)"].ranges == [(n, n) for n in range(70_002, 70_011, 2)]
    assert (report.rows, report.bad_rows) == (70_010, 70_010)
    assert report.doubts == []


def test_percent_instead_of_fraction_is_doubted(tmp_path: Path) -> None:
    report = check(tmp_path, rows(10, int_rate=13.06, revol_util=40.4))
    doubts = [doubt for doubt in report.doubts if "median" in doubt]
    assert [doubt.split(":")[0] for doubt in doubts] == ["int_rate", "revol_util"]
    assert all("is it given in percent? Expected 0.1306 for 13.06 %" in doubt for doubt in doubts)
    assert [group.field for group in report.groups] == ["int_rate"]


def test_values_outside_the_seen_range_are_doubted(tmp_path: Path) -> None:
    loans = rows(10)
    loans[0]["dti"] = 41
    loans[1]["int_rate"] = 0.053099999999999994  # 0.0531, as many a table holds it
    doubts = check(tmp_path, loans).doubts
    assert len(doubts) == 1
    assert doubts[0].startswith("dti: 10 % is outside the range seen in training, 0")
    assert any(
        "the median is below" in doubt for doubt in check(tmp_path, rows(10, loan_amnt=5)).doubts
    )


def test_unseen_levels_are_doubted_with_the_nearest(tmp_path: Path) -> None:
    loans = rows(10)
    loans[0]["purpose"] = loans[1]["purpose"] = "creditcard"
    loans[2]["home_ownership"] = " RENT"
    assert check(tmp_path, loans).doubts == [
        "purpose: 'creditcard' was not seen in training (did you mean credit_card?): 2 rows",
        "home_ownership: ' RENT' was not seen in training (did you mean RENT?): 1 row",
    ]


def test_very_many_unseen_levels_are_summarised(tmp_path: Path) -> None:
    loans = rows(30_000)
    for i, loan in enumerate(loans):
        loan["purpose"] = f"new {i}"
    doubts = check(tmp_path, loans).doubts
    assert len(doubts) == 21
    assert doubts[-1] == "purpose: other values that were not seen in training: 29,980 rows"


def test_constant_columns_and_repeated_ids_are_doubted(tmp_path: Path) -> None:
    loans = [row | {"loan_id": f"L{i % 7}"} for i, row in enumerate(rows(10, dti=5, grade="A"))]
    doubts = check(tmp_path, loans).doubts
    assert doubts[:2] == [
        "loan_id: 3 loans have the id of an earlier one: rows 8–10",
        "grade: every row has the value 'A'",
    ]
    assert doubts[2].startswith("dti: every row has the value 5")


@pytest.mark.parametrize(("name", "wrong"), [("revol_util", "x"), ("emp_length", "11 years")])
def test_a_column_is_doubted_as_empty_only_where_every_row_is_missing(
    tmp_path: Path, name: str, wrong: str
) -> None:
    doubt = f"{name}: no row has a value"
    assert doubt in check(tmp_path, rows(10, **{name: None})).doubts
    for first in (wrong, GOOD[name]):
        loans = rows(10, **{name: None})
        loans[0][name] = first
        assert doubt not in check(tmp_path, loans).doubts
    assert doubt not in check(tmp_path, rows(10, **{name: wrong})).doubts


def test_a_book_of_broken_rows_only_has_no_doubt_about_empty_columns(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text(f"{','.join(GOOD)}\n1\n2\n", encoding="utf-8")
    report = check_book(open_book(path), default_definition())
    assert (report.rows, report.bad_rows, report.doubts) == (2, 2, [])


def test_parquet_gets_the_same_report(tmp_path: Path) -> None:
    loans = rows(50)
    loans[7]["delinq_2yrs"] = -1
    from_csv = check(tmp_path, loans).to_json()
    pyarrow.parquet.write_table(pa.Table.from_pylist(loans), tmp_path / "book.parquet")
    book = open_book(tmp_path / "book.parquet")
    assert check_book(book, default_definition()).to_json() | {"book": 0} == from_csv | {"book": 0}


def test_progress_ends_at_one(tmp_path: Path) -> None:
    fractions: list[float] = []
    check(tmp_path, rows(10), progress=fractions.append)
    assert fractions[-1] == 1
