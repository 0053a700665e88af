"""Exploration: the findings about a book, and the self-contained page that shows them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from helpers.report_pages import ReportPage, check_self_contained
from peerloan.book import BookError, draft_definition, open_book
from peerloan.loan import Definition, default_definition, parse_definition
from peerloan.training.exploration import BookStudy, explore, list_findings, measure
from peerloan.training.exploration.measure import Feature
from peerloan.training.exploration.report import render_page

LOANS = 4_000
HEAD = """
model = "cars"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[roles]
id = "number"
date = "day"
"""


def definition(*fields: str) -> Definition:
    """Another lender's definition, of fields like 'name kind' or 'name kind missing'."""
    blocks = []
    for name, kind, *rest in (field.split() for field in fields):
        extra = {"missing": "missing = true", "percent": "percent = true"}
        keys = [extra[word] for word in rest]
        if kind == "ordered":
            keys.append("levels = ['low', 'middle', 'high']")
        blocks.append(
            "\n".join(["[[field]]", f"name = '{name}'", f"kind = '{kind}'", "label = 'L'", *keys])
        )
    return parse_definition("\n".join([HEAD, *blocks]), "cars.toml")


def write(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "cars.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def book_with_findings() -> dict[str, Any]:
    """4,000 loans, 5 % late, with something to report about every column."""
    rng = np.random.default_rng(5)
    rows = np.arange(LOANS)
    late = rows % 20 == 0
    score = rng.normal(size=LOANS)
    branch = np.where(late & (rows % 60 == 0), "risky", "usual").astype(object)
    branch[rows % 97 == 3] = "risky"
    branch[[1, 2, 20]] = "rare"
    town = np.array([f"town {number**2 // 60}" for number in rng.integers(0, 60, LOANS)])
    pay = np.exp(rng.normal(10, 0.5, LOANS))
    pay[7] = 5e7
    age = np.round(rng.uniform(18, 80, LOANS), 2)
    age[rows % 9 == 4] = 0
    gaps: list[float | None] = score.tolist()
    for row in rows[late & (rows % 3 == 0)].tolist() + list(range(1, 200, 4)):
        gaps[row] = None
    return {
        "number": [f"loan-{row}" for row in rows],
        "day": ["2026-01-01"] * LOANS,
        "outcome": np.where(late, "bad", "good"),
        "branch": branch.tolist(),
        "town": town,
        "size": np.array(["low", "middle", "high"])[np.digitize(score, [-0.5, 0.5])],
        "score": score,
        "gaps": gaps,
        "pay": pay,
        "age": age,
        "same": [3] * LOANS,
        "empty": pa.nulls(LOANS, pa.float64()),
        "after": np.where(late, 1, rows % 2),
        "part": np.where(rows == 11, 1.5, rng.uniform(0, 1, LOANS)),
        "steps": rng.choice([1.5, 2.25, 4, 8.5], LOANS),
    }


FIELDS = (
    "branch category",
    "town category",
    "size ordered",
    "score number",
    "gaps number missing",
    "pay number",
    "age number",
    "same whole",
    "empty number missing",
    "after whole",
    "part number percent",
    "steps number",
)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("cars"), book_with_findings())


@pytest.fixture(scope="module")
def study(book: Path) -> BookStudy:
    return measure(open_book(book), definition(*FIELDS))


def feature(study: BookStudy, name: str) -> Feature:
    return next(feature for feature in study.features if feature.name == name)


def sentences(study: BookStudy, topic: str, name: str | None = None) -> str:
    return "\n".join(
        finding.text
        for finding in list_findings(study)
        if finding.topic == topic and name in (None, finding.feature)
    )


def test_the_late_rate_is_the_first_finding(study: BookStudy) -> None:
    first = list_findings(study)[0]
    assert first.topic == "label"
    assert "200 of 4,000 loans are late: 5.00 % (4.37–5.72)" in first.text
    assert "right for 95.0 %" in first.text


@pytest.mark.parametrize(
    ("topic", "name", "words"),
    [
        ("risk", "branch", "clearly above the average: risky"),
        ("too few", "branch", "rare (3 loans, 1 late)"),
        ("missing", "gaps", "clearly more, so a missing value is information"),
        ("empty", "same", "every loan has the value 3"),
        ("empty", "empty", "no loan has a value"),
        ("odd values", "pay", "the highest is 50,000,000"),
        ("odd values", "age", "exactly 0 in 444 loans"),
        ("odd values", "part", "1 loan is above 100 %; the highest is 150 %"),
        ("odd values", "steps", "only 4 different values"),
        ("skewed", None, "`pay` (skewness "),
        ("overlap", None, "`size` and `score`"),
        ("signal", None, "`branch`"),
    ],
)
def test_each_peculiarity_is_reported(
    study: BookStudy, topic: str, name: str | None, words: str
) -> None:
    assert words in sentences(study, topic, name)


@pytest.mark.parametrize(
    ("topic", "name"),
    [("risk", "score"), ("risk", "part"), ("skewed", "score"), ("odd values", "score")],
)
def test_nothing_is_reported_about_ordinary_features(
    study: BookStudy, topic: str, name: str
) -> None:
    of_topic = [finding for finding in list_findings(study) if finding.topic == topic]
    assert not [
        finding for finding in of_topic if finding.feature == name or f"`{name}`" in finding.text
    ]


def test_low_correlations_are_reported(study: BookStudy, book: Path) -> None:
    few = measure(open_book(book), definition("score number", "age number"))
    assert "Every correlation with the label is low" in sentences(few, "signal")
    assert "Every correlation" not in sentences(study, "signal")  # `after` nearly equals the label


def test_a_column_that_reveals_the_outcome_is_reported(tmp_path: Path) -> None:
    columns = book_with_findings()
    columns["after"] = (np.asarray(columns["outcome"]) == "bad").astype(int)
    measured = measure(open_book(write(tmp_path, columns)), definition("after whole", "age number"))
    assert "Make sure that `after` is known before the decision" in sentences(measured, "signal")


def test_each_loan_is_in_one_bin_of_each_feature(study: BookStudy) -> None:
    for each in study.features:
        assert sum(bin_.rate.loans for bin_ in each.bins) == LOANS, each.name
        assert sum(bin_.rate.late for bin_ in each.bins) == 200, each.name
        assert all(bin_.rate.loans for bin_ in each.bins), each.name
        assert len({bin_.label for bin_ in each.bins}) == len(each.bins), each.name


def test_numbers_have_bins_of_tenths_and_one_of_missing_values(study: BookStudy) -> None:
    score = feature(study, "score")
    assert [each.rate.loans for each in score.bins] == [400] * 10
    gaps = feature(study, "gaps")
    assert [each.kind for each in gaps.bins] == ["range"] * 10 + ["missing"]
    assert gaps.bins[-1].rate.loans == gaps.missing == LOANS - gaps.given
    assert [bin_.label for bin_ in feature(study, "steps").bins] == ["1.5", "2.25", "4", "8.5"]


def test_ordered_levels_keep_their_order_and_categories_are_sorted_by_frequency(
    study: BookStudy,
) -> None:
    assert [bin_.label for bin_ in feature(study, "size").bins] == ["low", "middle", "high"]
    assert [bin_.label for bin_ in feature(study, "branch").bins] == ["usual", "risky", "rare"]


def test_rare_levels_of_many_share_a_bin(study: BookStudy) -> None:
    town = feature(study, "town")
    assert town.different > 40
    assert len(town.bins) == 20
    assert town.bins[-1].kind == "others"
    assert town.bins[-1].label == f"{town.different - 19} other levels"
    loans = [each.rate.loans for each in town.bins[:-1]]
    assert loans == sorted(loans, reverse=True)


def test_labels_of_bins_have_enough_digits_to_differ(tmp_path: Path) -> None:
    columns = book_with_findings() | {"pay": 1000 + np.arange(LOANS) * 1e-5}
    bins = feature(
        measure(open_book(write(tmp_path, columns)), definition("pay number")), "pay"
    ).bins
    assert bins[0].label == "1,000 – 1,000.00399"


def test_columns_with_a_role_are_not_features(study: BookStudy) -> None:
    assert [each.name for each in study.features] == [field.split()[0] for field in FIELDS]


def test_invalid_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    columns = book_with_findings()
    columns["outcome"][:3] = "unknown"
    columns["size"] = ["huge", *columns["size"][1:].tolist()]
    measured = measure(
        open_book(write(tmp_path, columns)), definition("size ordered", "pay number")
    )
    assert measured.excluded == 3
    assert measured.overall.loans == LOANS - 3
    assert {each.field: each.count for each in measured.faults} == {"outcome": 3, "size": 1}
    assert "3 of 4,000 rows are invalid by the definition" in sentences(measured, "rows")


@pytest.mark.parametrize(("highest", "is_cap"), [(1_000.0, True), (99_999_999.0, False)])
def test_a_code_for_missing_is_not_taken_for_a_cap(
    tmp_path: Path, highest: float, is_cap: bool
) -> None:
    columns = book_with_findings()
    columns["score"] = np.linspace(1, 999, len(columns["score"]))
    columns["score"][::20] = highest
    found = measure(open_book(write(tmp_path, columns)), definition(*FIELDS))
    assert ("it seems to be a cap" in sentences(found, "odd values", "score")) == is_cap


def test_values_outside_the_seen_range_are_counted(book: Path) -> None:
    seen = parse_definition(
        HEAD + "[[field]]\nname='age'\nkind='number'\nlabel='Age'\nseen=[18, 80]", "cars.toml"
    )
    measured = measure(open_book(book), seen)
    assert "444 loans are outside the training range" in sentences(measured, "odd values", "age")


def test_a_book_without_its_label_or_without_valid_rows_is_refused(tmp_path: Path) -> None:
    columns = book_with_findings()
    del columns["outcome"]
    with pytest.raises(BookError, match="expected the column outcome"):
        measure(open_book(write(tmp_path, columns)), definition("pay number"))
    columns["outcome"] = ["unknown"] * LOANS
    with pytest.raises(BookError, match="at least one valid row, given 4000, none valid"):
        measure(open_book(write(tmp_path, columns)), definition("pay number"))


@pytest.mark.parametrize("outcome", ["good", "bad"])
def test_a_book_of_one_outcome_is_explored(tmp_path: Path, outcome: str) -> None:
    path = write(tmp_path, book_with_findings() | {"outcome": [outcome] * LOANS})
    exploration = explore(open_book(path), definition(*FIELDS))
    assert "most figures below are unreliable" in exploration.page


def test_a_book_of_one_loan_is_explored(tmp_path: Path) -> None:
    path = write(tmp_path, {name: column[:1] for name, column in book_with_findings().items()})
    assert "1 of 1 loan" in explore(open_book(path), definition(*FIELDS)).page


@pytest.mark.parametrize("values", [[-1e308, 1e308], [5e-324, 0.0], [1e16, 1e16 + 2]])
def test_extreme_numbers_are_explored(tmp_path: Path, values: list[float]) -> None:
    path = write(tmp_path, book_with_findings() | {"pay": values * (LOANS // 2)})
    explore(open_book(path), definition("pay number"))


def test_the_study_is_plain_data(study: BookStudy) -> None:
    assert json.loads(json.dumps(asdict(study), allow_nan=False))["overall"]["loans"] == LOANS


@pytest.fixture(scope="module")
def page(book: Path) -> str:
    return explore(open_book(book), definition(*FIELDS), source="cars.toml").page


def test_the_page_is_self_contained(page: str) -> None:
    check_self_contained(page)


def test_the_page_shows_every_feature_with_its_plots_and_bins(page: str, study: BookStudy) -> None:
    for each in study.features:
        drawn = f'aria-label="Late rates by {each.name}"' in page
        assert drawn == (each.name not in ("same", "empty"))
        for bin_ in each.bins if drawn else ():
            assert bin_.label in page
    assert "No loan has a value." in page
    assert "Every loan has the value 3." in page
    assert "cars.toml" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_contains_no_loan_id_or_date(page: str) -> None:
    assert "loan-17" not in page
    assert "2026-01-01" not in page


def test_the_same_book_gives_the_same_page(page: str, book: Path) -> None:
    assert explore(open_book(book), definition(*FIELDS), source="cars.toml").page == page


def test_names_and_levels_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>`\"'&"
    columns = book_with_findings()
    columns[evil] = [evil if row % 3 else "<b>" for row in range(LOANS)]
    text = (
        HEAD.replace("cars", "evil")
        + f"[[field]]\nname={json.dumps(evil)}\nkind='category'\nlabel='<i>x</i>'\nhelp='<u>'"
    )
    path = write(tmp_path, columns).rename(tmp_path / "<img src=x>.parquet")
    evil_definition = parse_definition(text, "evil.toml")
    exploration = explore(open_book(path), evil_definition, source="<u>here</u>")
    page = ReportPage(exploration.page)
    assert not page.open
    assert not page.tags & {"script", "b", "img", "u"}


def test_a_book_is_explored_by_its_drafted_definition(tmp_path: Path) -> None:
    columns = {name: column[:800] for name, column in book_with_findings().items()}
    path = write(tmp_path, columns)
    text = draft_definition(open_book(path), "outcome", "bad")
    assert "40 of 800" in explore(open_book(path), parse_definition(text, "draft.toml")).page


def test_the_sample_is_explored(sample_book: Path) -> None:
    reported: list[tuple[str, float]] = []
    measured = measure(
        open_book(sample_book),
        default_definition(),
        lambda step, done: reported.append((step, done)),
    )
    assert [each.name for each in measured.features] == list(default_definition().names)
    assert "accuracy would mislead" in sentences(measured, "label")
    assert "`annual_inc`" in sentences(measured, "skewed")
    assert "`int_rate` and `grade`" in sentences(measured, "overlap")
    assert sentences(measured, "missing", "emp_length")
    assert {step for step, done in reported if done == 1} >= {"measuring features"}


def test_bins_of_an_ordered_category_with_many_levels_are_tenths(tmp_path: Path) -> None:
    levels = [f"step {number:02}" for number in range(40)]
    text = HEAD + f"[[field]]\nname='step'\nkind='ordered'\nlabel='Step'\nlevels={levels}"
    path = write(
        tmp_path, book_with_findings() | {"step": [levels[row % 40] for row in range(LOANS)]}
    )
    measured = measure(open_book(path), parse_definition(text, "steps.toml"))
    labels = [bin_.label for bin_ in measured.features[0].bins]
    assert len(labels) == 10
    assert labels[0] == "step 00 – step 03"


@pytest.mark.longer
def test_the_command_writes_the_page_and_prints_the_findings(
    run: Callable[..., subprocess.CompletedProcess[str]], sample_book: Path, tmp_path: Path
) -> None:
    done = run("explore", sample_book, "-o", "report.html")
    assert done.returncode == 0, done.stderr
    assert "definition: PeerLoan's own" in done.stdout
    assert "accuracy would mislead" in done.stdout
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")

    again = run("explore", sample_book, "-o", "report.html")
    assert again.returncode == 1
    assert "--overwrite" in again.stderr

    as_json = run("explore", sample_book, "-o", "report.html", "--overwrite", "--json")
    assert json.loads(as_json.stdout)["overall"]["loans"] == 6_000

    book = run("explore", sample_book, "-o", sample_book, "--overwrite")
    assert book.returncode == 1
    assert "is one of the book's own files" in book.stderr


def test_only_the_most_informative_of_very_many_features_are_drawn(tmp_path: Path) -> None:
    late = np.arange(200) % 5 == 0
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {f"n{i}": rng.normal(size=200) + late * i for i in range(5)}
    columns |= {"outcome": np.where(late, "bad", "good")}
    fields = definition(*(f"n{i} number" for i in range(5)))
    study = measure(open_book(write(tmp_path, columns)), fields)
    page = render_page(study, list_findings(study), most_drawn=2)
    assert page.count("<article") == 2
    assert page.count("Distribution of ") == page.count("Distribution of n3") + page.count(
        "Distribution of n4"
    )
    assert "Only the 2 most informative features of 5 are shown." in page
    assert all(f"<code>n{i}</code>" in page for i in range(5))
    linked = set(re.findall('href="#(f[0-9]+)"', page))
    assert linked <= set(re.findall('id="(f[0-9]+)"', page))
