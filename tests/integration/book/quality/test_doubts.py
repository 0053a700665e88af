"""Doubts about a book: shown and counted by every command, and refused on request."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import Call
from helpers.csv_files import write_csv
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.registry import Store

Row = dict[str, str]


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands keep what they record in the test's folder."""
    monkeypatch.setenv("PEERLOAN_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def promoted(store: Store, version_of: VersionOf) -> str:
    store.promote(version_of("additive"))
    return version_of("additive")


@pytest.fixture
def good(sample_book: Path) -> list[Row]:
    """Sixty loans that nothing is wrong with."""
    with sample_book.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[:60]


def as_thousands(rows: list[Row]) -> list[Row]:
    return [row | {"loan_amnt": f"{float(row['loan_amnt']) / 1000:.3f}"} for row in rows]


def as_percent(rows: list[Row]) -> list[Row]:
    return [row | {"revol_util": f"{100 * float(row['revol_util'] or 0.5):.1f}"} for row in rows]


def with_na(rows: list[Row]) -> list[Row]:
    return [row | ({"home_ownership": "NA"} if i % 6 == 0 else {}) for i, row in enumerate(rows)]


def as_fraction(rows: list[Row]) -> list[Row]:
    return [row | {"dti": f"{float(row['dti']) / 100:.4f}"} for row in rows]


def all_unseen(rows: list[Row]) -> list[Row]:
    return [row | {"purpose": "boat"} for row in rows]


DOUBTED = [
    (as_thousands, "loan_amnt: the median is below the range", "write ", 60),
    (as_percent, "revol_util: the median is above the range", "is it given in percent?", 60),
    (with_na, "home_ownership: 'NA' was not seen in training", "leave the cell empty", 10),
    (as_fraction, "dti: ", "is it in another unit?", 0),
    (all_unseen, "purpose: 'boat' was not seen in training", "60 rows", 60),
]


@pytest.mark.parametrize(("changed", "begins", "holds", "rows"), DOUBTED)
def test_score_says_counts_and_refuses_what_check_doubts(
    call: Call,
    promoted: str,
    good: list[Row],
    changed: Callable[[list[Row]], list[Row]],
    begins: str,
    holds: str,
    rows: int,
) -> None:
    assert promoted
    book = write_csv(Path("book.csv"), changed(good))
    doubts = call("check", book, "--json").answer["doubts"]
    assert any(text.startswith(begins) and holds in text for text in doubts), doubts
    done = call("score", book, "-o", "out.csv", "--json")
    assert done.code == 0
    assert set(done.answer["doubts"]) <= set(doubts)
    assert any(text.startswith(begins) for text in done.answer["doubts"])
    assert rows <= done.answer["rows_with_warnings"] <= 60
    assert f"doubt: {begins}" in done.err
    assert not rows or f"{done.answer['rows_with_warnings']} rows of 60 have a value" in done.err
    for more in ((), ("--record",)):
        refused = call("score", book, "-o", "other.csv", "--strict-doubts", *more)
        assert refused.code == 1
        assert begins in refused.err
        assert "--strict-doubts: nothing was written" in refused.err
        assert not list(Path().glob("*other*"))
    database = Database(f"sqlite:///{Path('ledger.db').absolute()}")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar() == 0


def test_a_book_without_grave_doubts_is_not_refused(
    call: Call, promoted: str, good: list[Row]
) -> None:
    assert promoted
    done = call("score", write_csv(Path("book.csv"), good), "-o", "out.csv", "--strict-doubts")
    assert (done.code, "doubt" in done.err) == (0, False)
    many = good * 5
    many[7] = many[7] | {"purpose": "boat"}
    for i, row in enumerate(many):
        many[i] = row | {"loan_id": str(i)}
    done = call("score", write_csv(Path("many.csv"), many), "-o", "many-out.csv", "--strict-doubts")
    assert done.code == 0
    assert "doubt: purpose: 'boat' was not seen in training" in done.err
    assert "1 row of 300 has a value that is outside" in done.err


@pytest.mark.parametrize("name", ["dti", "purpose"])
def test_score_doubts_a_constant_column_only_in_thirty_rows_or_more(
    call: Call, promoted: str, good: list[Row], name: str
) -> None:
    """A day's few loans may well be alike; in a table to train on they may not."""
    assert promoted
    doubt = f"{name}: every row has the value"
    constant = [row | {name: good[0][name]} for row in good]
    for rows, is_doubted in ((29, False), (30, True)):
        book = write_csv(Path(f"{rows}.csv"), constant[:rows])
        checked, scored = call("check", book), call("score", book, "-o", f"{rows}-out.csv")
        assert (checked.code, scored.code) == (0, 0)
        assert doubt in checked.out + checked.err
        assert (doubt in scored.err) == is_doubted


def test_na_of_r_is_no_level_where_levels_are_listed(
    call: Call, promoted: str, good: list[Row]
) -> None:
    assert promoted
    rows = [
        row | ({"emp_length": "NA", "grade": "N/A"} if i < 9 else {}) for i, row in enumerate(good)
    ]
    done = call("check", write_csv(Path("book.csv"), rows), "--json")
    assert done.code == 1
    expected = {problem["field"]: problem for problem in done.answer["problems"]}
    assert expected["emp_length"]["count"] == 9
    assert "not levels: leave the cell empty" in expected["emp_length"]["expected"]
    assert "set missing = true in the definition" in expected["grade"]["expected"]
    done = call("score", "book.csv", "-o", "out.csv")
    assert done.code == 1
    assert "not levels: leave the cell empty" in Path("out.csv.rejects").read_text("utf-8")


def shifted(good: list[Row], count: int, label: str) -> list[Row]:
    """Loans of another kind than those trained on: twice the interest rate, and one purpose."""
    return [
        good[i % len(good)] | {"loan_id": f"n{i}", "purpose": "medical", "is_late": label}
        for i in range(count)
    ]


def test_monitor_looks_at_loans_whose_outcome_is_not_known_yet(
    call: Call, promoted: str, good: list[Row]
) -> None:
    known = [good[i % 60] | {"loan_id": f"k{i}", "is_late": str(i % 7 // 6)} for i in range(400)]
    rows = [*known, *shifted(good, 800, "")]
    without = [{k: v for k, v in row.items() if k != "is_late"} for row in rows]
    write_csv(Path("open.csv"), rows)
    answer = call("monitor", "--book", "open.csv", "--json").answer
    bare = call("monitor", "--book", write_csv(Path("bare.csv"), without), "--json").answer
    of_known = call("monitor", "--book", write_csv(Path("known.csv"), known), "--json").answer
    assert answer["window"]["loans"] == bare["window"]["loans"] == 1200
    for figure in ("features", "score", "estimated"):
        assert answer[figure] == bare[figure]
    for figure in ("realised", "calibration"):
        assert answer[figure] == of_known[figure]
    assert {each["rule"] for each in answer["rules"]} >= {each["rule"] for each in bare["rules"]}
    assert "feature-drift" in {each["rule"] for each in answer["rules"]}
    assert answer["outcomes"] == {"known": 400, "missing": 800, "wrong": 0}
    assert bare["outcomes"] is None
    done = call("monitor", "--book", "open.csv")
    assert f"1,200 loans by {promoted}, 400 with a known outcome" in done.out
    assert "800 loans without an outcome: " in done.err


def test_monitor_counts_wrong_outcomes_apart(call: Call, promoted: str, good: list[Row]) -> None:
    assert promoted
    rows = [*good, *shifted(good, 20, "perhaps"), *shifted(good, 10, ""), good[0] | {"dti": "x"}]
    write_csv(Path("book.csv"), rows)
    answer = call("monitor", "--book", "book.csv", "--json").answer
    assert answer["window"] == {"book": "book.csv", "loans": 90, "rejected": 1}
    assert answer["outcomes"] == {"known": 60, "missing": 10, "wrong": 20}
    assert answer["realised"]["loans"] == 60
    done = call("monitor", "--book", "book.csv")
    assert "20 loans with an invalid outcome" in done.err
    assert "row 61, is_late: expected 1 (late) or 0 (on time), given 'perhaps'" in done.err
    nobody = write_csv(Path("nobody.csv"), [row | {"is_late": ""} for row in good])
    answer = call("monitor", "--book", nobody, "--json").answer
    assert (answer["realised"], answer["outcomes"]["known"]) == (None, 0)


def test_monitor_says_and_refuses_what_check_doubts(
    call: Call, promoted: str, good: list[Row]
) -> None:
    assert promoted
    write_csv(Path("book.csv"), as_percent(good))
    done = call("monitor", "--book", "book.csv", "--json")
    assert done.code == 0
    assert done.answer["doubts"][0].startswith("revol_util: the median is above the range")
    assert done.answer["rows_with_warnings"] >= 55
    assert "doubt: revol_util" in done.err
    done = call("monitor", "--book", "book.csv", "--strict-doubts")
    assert (done.code, done.out) == (1, "")
    assert "revol_util: the median is above" in done.err
    assert call("monitor", "--strict-doubts").code == 2


@pytest.fixture
def paid_book(sample_book: Path, tmp_path: Path) -> Path:
    """A book to train on: its label says who paid, and for 40 loans it is not known yet."""
    with sample_book.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:400]
    for i, row in enumerate(rows):
        del row["is_late"], row["loan_id"]
        row["paid_back"] = "" if i < 40 else str(int(i % 6 > 0))
        row["revol_util"] = "9999" if i % 10 == 0 else row["revol_util"]
    return write_csv(tmp_path / "paid.csv", rows)


def test_define_train_and_explore_say_who_is_late_and_what_is_doubted(
    call: Call, paid_book: Path
) -> None:
    done = call("define", paid_book, "--label", "paid_back", "-o", "loan.toml")
    assert "doubt: paid_back: 0 is taken to mean late (60 of 360 loans" in done.err
    assert Path("loan.toml").read_text("utf-8").startswith("# doubt: paid_back: 0 is taken")
    assert "# doubt: 40 rows have no outcome yet; training leaves them out" in Path(
        "loan.toml"
    ).read_text("utf-8")
    train = ("train", paid_book, "--definition", "loan.toml", "--quick", "--candidate", "binned")
    refused = call(*train, "--strict-doubts")
    assert refused.code == 1
    assert "revol_util: 9,999 in 40 rows" in refused.err
    assert "--strict-doubts: nothing was trained" in refused.err
    assert not list(Path("store").rglob("manifest.json"))

    done = call(*train, "--json")
    assert done.code == 0, done.err
    assert done.answer["label"] == {
        **{"column": "paid_back", "late": 0, "loans": 360, "late_loans": 60},
        **{"late_share": 1 / 6, "without_outcome": 40},
    }
    (doubt,) = [text for text in done.answer["doubts"] if text.startswith("revol_util")]
    assert "9,999 in 40 rows (10 %)" in doubt
    assert "late is 0 in paid_back: 60 of 360 loans (16.67 %)" in done.err
    assert "note: 40 rows left out: no outcome yet" in done.err
    assert f"doubt: {doubt}" in done.err
    (report,) = Path("store").rglob("report.html")
    text = report.read_text("utf-8")
    assert "late is <code>0</code>: 60 of 360 loans (16.7 %)" in text
    assert text.index("Doubts about the table.") < text.index("AUC, cross-validated")
    assert "9,999 in 40 rows" in text

    options = ("-o", "page.html", "--definition", "loan.toml")
    explored = call("explore", paid_book, *options, "--json").answer
    assert [text for text in explored["doubts"] if text.startswith("revol_util")] == [doubt]
    assert explored["without_outcome"] == 40
    assert explored["overall"]["loans"] == 360
    assert "9,999 in 40 rows" in Path("page.html").read_text("utf-8")


def test_a_label_the_wrong_way_round_is_doubted(call: Call, paid_book: Path) -> None:
    done = call("define", paid_book, "--label", "paid_back", "--late", "1", "-o", "loan.toml")
    assert "doubt: paid_back: 1 means late, and most loans have it" in done.err
    done = call("check", paid_book, "--definition", "loan.toml")
    assert "400 loans, 360 with a known outcome, 300 late (83.33 %)" in done.out
    assert "doubt: paid_back: 300 of 360 loans (83.33 %) are late, which is the value 1" in done.out
    assert call("define", paid_book, "--label", "paid_back", "--late", "2", "-o", "x").code == 1


def test_one_loan_is_one_loan(call: Call, promoted: str, good: list[Row]) -> None:
    write_csv(Path("one.csv"), good[:1])
    assert "one.csv: 1 loan, 0 late (0 %)" in call("check", "one.csv").out
    assert "out.csv: 1 loan, " in call("score", "one.csv", "-o", "out.csv").out
    assert f"one.csv: 1 loan by {promoted}" in call("monitor", "--book", "one.csv").out
    assert "s.csv: 1 loan" not in call("sample", "s.csv", "--loans", "2").err
    assert "1 loan to s.csv" in call("sample", "s.csv", "--loans", "1", "--overwrite").err


def test_a_missing_outcome_may_be_spelt_out(call: Call, good: list[Row], tmp_path: Path) -> None:
    """As R and pandas write it; it is then neither a third value nor a wrong one."""
    spelt = ("NA", "nan", "<NA>", "?")
    rows = [
        {name: value for name, value in row.items() if name != "is_late"}
        | {"status": ("Charged Off" if i < 9 else "Fully Paid") if i % 3 else spelt[i % 4]}
        for i, row in enumerate(good)
    ]
    write_csv(tmp_path / "book.csv", rows)
    drafted = call("define", "book.csv", "--label", "status", "-o", "loan.toml")
    assert drafted.code == 0, drafted.err
    checked = call("check", "book.csv", "--definition", "loan.toml", "--json")
    assert (checked.answer["outcomes"], checked.answer["late"]) == (40, 6)
    assert checked.answer["problems"] == []
