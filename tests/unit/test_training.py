"""Training: held-out figures, what it refuses, and what stands in a bundle afterwards."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from peerloan.book import BookError, open_book
from peerloan.loan import Checks, Definition, Loans, default_definition, parse_definition
from peerloan.model import NumberTable, Policy, Scorecard, Store
from peerloan.sample import batches
from peerloan.training import CANDIDATES, Outcome, TrainingError, train
from peerloan.training.encoders import fit_encoding
from peerloan.training.evaluation import metrics

Rows = list[dict[str, str]]


def sample_rows(loans: int, seed: int = 3) -> Rows:
    rows: Rows = []
    for batch in batches(loans, seed=seed):
        for record in batch.to_pylist():
            rows.append({name: "" if v is None else str(v) for name, v in record.items()})
    return rows


def write(path: Path, rows: Rows) -> Path:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rows() -> Rows:
    """A small sample, of which every tenth loan is late."""
    found = sample_rows(400)
    for i, row in enumerate(found):
        row["is_late"] = "1" if i % 10 == 0 else "0"
    return found


def refusal(tmp_path: Path, rows: Rows, definition: Definition | None = None) -> str:
    """The one line that training says of a table; nothing may be left in the store."""
    store = Store(tmp_path / "store")
    book = open_book(write(tmp_path / "book.csv", rows))
    with pytest.raises((TrainingError, BookError)) as caught:
        train(book, definition or default_definition(), store)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'book.csv'}: ")
    assert "\n" not in message
    assert store.versions() == []
    assert not (tmp_path / "store").exists()
    return message.removeprefix(f"{tmp_path / 'book.csv'}: ")


# Figures


def test_the_figures_of_a_few_loans_by_hand() -> None:
    late = np.array([0.0, 0, 1, 1, 0])
    probability = np.array([0.1, 0.4, 0.35, 0.8, 0.2])
    found = metrics(late, probability, Policy.at(0.38, "threshold", 0.38))
    # Of the six pairs of a late and another loan only (0.35, 0.4) stands the wrong way round.
    assert found["auc"] == pytest.approx(5 / 6)
    assert found["recall"] == 0.5
    assert found["flagged"] == pytest.approx(2 / 5)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.65**2 + 0.04 + 0.04) / 5)
    logs = [0.9, 0.6, 0.35, 0.8, 0.8]
    assert found["log_loss"] == pytest.approx(-sum(map(math.log, logs)) / 5)
    assert (found["held_out"], found["held_out_late"]) == (5.0, 2.0)


def test_equal_probabilities_count_half_and_the_threshold_itself_is_flagged() -> None:
    policy = Policy.at(0.25, "threshold", 0.25)
    found = metrics(np.array([0.0, 1]), np.array([0.25, 0.25]), policy)
    assert (found["auc"], found["recall"], found["flagged"]) == (0.5, 1.0, 1.0)


def test_a_certainty_that_is_wrong_has_a_finite_log_loss() -> None:
    found = metrics(np.array([0.0, 1]), np.array([1.0, 0.0]), Policy.by_cost())
    assert found["log_loss"] == pytest.approx(math.log(1e7), rel=1e-6)
    assert found["auc"] == 0.0
    assert found["brier"] == 1.0


# What is refused


def test_a_table_without_late_loans_is_refused(tmp_path: Path, rows: Rows) -> None:
    message = refusal(tmp_path, [row | {"is_late": "0"} for row in rows])
    assert message == "expected at least 20 loans that are late, given 0 of 400"


def test_a_table_of_late_loans_alone_is_refused(tmp_path: Path, rows: Rows) -> None:
    message = refusal(tmp_path, [row | {"is_late": "1"} for row in rows])
    assert message == "expected at least 20 loans that are on time, given 0 of 400"


def test_a_table_with_few_late_loans_is_refused(tmp_path: Path, rows: Rows) -> None:
    few = [row | {"is_late": "1" if i < 19 else "0"} for i, row in enumerate(rows)]
    assert "expected at least 20 loans that are late, given 19 of 400" in refusal(tmp_path, few)


def test_a_table_of_one_loan_is_refused(tmp_path: Path, rows: Rows) -> None:
    assert "expected at least 20 loans that are late, given 1 of 1" in refusal(tmp_path, rows[:1])


def test_a_table_without_a_row_is_refused(tmp_path: Path, rows: Rows) -> None:
    path = write(tmp_path / "book.csv", rows[:1])
    path.write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(BookError, match="expected loans, got column names and no row"):
        train(open_book(path), default_definition(), Store(tmp_path / "store"))


@pytest.mark.parametrize("label", ["2", "", "late", "NaN", "-1", "0.5", "yes"])
def test_a_label_that_is_neither_is_refused_with_its_row(
    tmp_path: Path, rows: Rows, label: str
) -> None:
    bad = [row | ({"is_late": label} if i == 7 else {}) for i, row in enumerate(rows)]
    message = refusal(tmp_path, bad)
    assert message.startswith("row 8, is_late: expected 1 (late) or 0 (on time), given ")
    assert message.endswith("; `peerloan check` names every bad row")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("int_rate", "13.06%"),
        ("int_rate", "13.06"),
        ("annual_inc", "-1"),
        ("annual_inc", ""),
        ("annual_inc", "1e400"),
        ("grade", "H"),
        ("purpose", "x" * 201),
        ("delinq_2yrs", "0.5"),
    ],
)
def test_a_bad_row_is_refused(tmp_path: Path, rows: Rows, column: str, value: str) -> None:
    bad = [row | ({column: value} if i == 399 else {}) for i, row in enumerate(rows)]
    assert refusal(tmp_path, bad).startswith(f"row 400, {column}: expected ")


def test_a_missing_column_is_refused(tmp_path: Path, rows: Rows) -> None:
    for column in ("dti", "is_late"):
        bad = [{name: value for name, value in row.items() if name != column} for row in rows]
        assert f"expected the column {column}, which is not there" in refusal(tmp_path, bad)


# What is published


@dataclass(frozen=True)
class Run:
    """A training run: its store, what it gave, and what it told of its progress."""

    store: Store
    outcomes: list[Outcome]
    told: list[tuple[str, float]]


def run_on(folder: Path, rows: Rows) -> Run:
    store, told = Store(folder / "store"), list[tuple[str, float]]()
    book = open_book(write(folder / "book.csv", rows))
    outcomes = train(
        book, default_definition(), store, progress=lambda what, done: told.append((what, done))
    )
    return Run(store, outcomes, told)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> Run:
    return run_on(tmp_path_factory.mktemp("first"), rows)


def test_the_better_candidate_comes_first_and_both_are_published(first_run: Run) -> None:
    store, outcomes = first_run.store, first_run.outcomes
    assert {outcome.candidate for outcome in outcomes} == {"basic", "additive"} == set(CANDIDATES)
    scores = [outcome.metrics["auc"] for outcome in outcomes]
    assert scores == sorted(scores, reverse=True)
    assert set(store.versions()) == {outcome.version for outcome in outcomes}
    for outcome in outcomes:
        manifest = store.manifest(outcome.version)
        assert manifest.candidate == outcome.candidate
        assert manifest.metrics == outcome.metrics
        assert (manifest.trained_on.loans, manifest.trained_on.late) == (400, 40)
        assert outcome.metrics["held_out"] == 80
        assert outcome.metrics["held_out_late"] == 8


def test_progress_is_told_from_0_to_1(first_run: Run) -> None:
    assert all(0 <= done <= 1 for _, done in first_run.told)
    by_step: dict[str, list[float]] = {}
    for what, done in first_run.told:
        by_step.setdefault(what, []).append(done)
    assert {step.split(" ", 1)[1] for step in by_step} >= {
        "fitting on four fifths",
        "fitting on all loans",
        "compiling",
    }
    for told in by_step.values():
        assert told == sorted(told)
        assert told[-1] == 1.0


def test_the_same_table_gives_the_same_versions_again(
    first_run: Run, tmp_path: Path, rows: Rows
) -> None:
    again = run_on(tmp_path, rows)
    for first, second in zip(first_run.outcomes, again.outcomes, strict=True):
        one = first_run.store.manifest(first.version)
        other = again.store.manifest(second.version)
        assert one.candidate == other.candidate
        assert one.files == other.files
        assert one.golden == other.golden
        assert one.metrics == other.metrics
        assert one.trained_on == other.trained_on


def test_the_definition_in_a_bundle_says_what_was_seen(tmp_path: Path, rows: Rows) -> None:
    strange = [dict(row) for row in rows]
    strange[0] |= {"loan_amnt": "123456.5", "purpose": "moon 🏰", "revol_util": ""}
    strange[1] |= {"dti": "-0.0", "int_rate": "1"}
    for row in strange:
        row["emp_length"] = ""
    store = Store(tmp_path / "store")
    (outcome,) = train(
        open_book(write(tmp_path / "book.csv", strange)),
        default_definition(),
        store,
        ["additive"],
    )
    bundle = store.load(outcome.version)
    before, seen = default_definition(), bundle.definition
    assert seen.names == before.names
    assert seen.label == before.label
    assert seen.texts == before.texts
    for name in ("loan_amnt", "int_rate", "dti", "annual_inc", "delinq_2yrs", "revol_util"):
        values = [float(row[name]) for row in strange if row[name]]
        assert seen[name].seen_range == (min(values), max(values))
        assert (seen[name].min, seen[name].above, seen[name].max) == (
            *(before[name].min, before[name].above, before[name].max),
        )
    purposes = [row["purpose"] for row in strange]
    assert set(seen["purpose"].seen_levels) == set(purposes)
    counts = [purposes.count(level) for level in seen["purpose"].seen_levels]
    assert counts == sorted(counts, reverse=True)
    assert set(seen["purpose"].levels) == {*before["purpose"].levels, "moon 🏰"}
    assert seen["grade"] == before["grade"]
    assert bundle.profile.usual("emp_length") is None
    warnings = Checks(seen).loan({"purpose": "house 2", "loan_amnt": 200_000}).warnings
    assert warnings[0].startswith("loan_amnt: 200,000 US dollars is outside the range seen")
    assert warnings[1].startswith("purpose: 'house 2' was not seen in training")


def test_the_sample_is_recognised_as_the_built_in_sample(trained: Path, tmp_path: Path) -> None:
    store = Store(trained)
    for version in store.versions():
        manifest = store.manifest(version)
        assert manifest.trained_on.sample
        assert manifest.trained_on.source == "built-in sample"
        card = (trained / "versions" / version / "card.md").read_text()
        assert "Trained on the built-in sample" in card


def test_one_sampled_loan_makes_a_table_a_sample_and_none_does_not(
    tmp_path: Path, rows: Rows
) -> None:
    real = [row | {"loan_id": f"L{i}"} for i, row in enumerate(rows)]
    mixed = [*real[:-1], rows[-1]]
    for name, table, sample in (("real", real, False), ("mixed", mixed, True)):
        store = Store(tmp_path / name)
        path = write(tmp_path / f"{name}.csv", table)
        (outcome,) = train(open_book(path), default_definition(), store, ["additive"])
        trained_on = store.manifest(outcome.version).trained_on
        assert trained_on.sample == sample
        assert trained_on.source == ("built-in sample" if sample else path.name)
        card = (tmp_path / name / "versions" / outcome.version / "card.md").read_text()
        assert ("built-in sample" in card) == sample


ODD = """\
model = "odd"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[[field]]
name = "above it"
kind = "number"
label = "Above"
above = 0
max = 1
[[field]]
name = "count.of"
kind = "whole"
label = "Count"
min = -5
max = 5
missing = true
[[field]]
name = "never"
kind = "number"
label = "Never given"
missing = true
[[field]]
name = "nothing"
kind = "category"
label = "Never given"
missing = true
[[field]]
name = "one"
kind = "category"
label = "One level"
[[field]]
name = "size"
kind = "ordered"
label = "Size"
levels = ["< 1", "1 %", "10+"]
[[field]]
name = "huge"
kind = "number"
label = "Huge"
"""


def odd_rows(random: np.random.Generator) -> Rows:
    tiny = ["5e-324", "1e-310", "1", "0.99999", "0.5"]
    return [
        {
            "above it": str(random.choice([*tiny, str(random.uniform(0.001, 1))])),
            "count.of": str(random.choice(["", "-5", "0", "5"])),
            "never": "",
            "nothing": "",
            "one": "same, always",
            "size": str(random.choice(["< 1", "1 %", "10+"])),
            "huge": str(random.choice(["1e39", "-1e300", "1.7976931348623157e308", "0", "-0.0"])),
            "outcome": str(random.choice(["bad", "good"])),
        }
        for _ in range(150)
    ]


# scikit-learn sums a column to see whether a value is missing.
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in reduce")
@pytest.mark.parametrize("candidate", sorted(CANDIDATES))
def test_an_odd_table_gives_a_bundle_that_opens_and_decides(tmp_path: Path, candidate: str) -> None:
    store = Store(tmp_path / "store")
    book = open_book(write(tmp_path / "book.csv", odd_rows(np.random.default_rng(1))))
    definition = parse_definition(ODD, "odd.toml")
    (outcome,) = train(book, definition, store, [candidate])
    bundle = store.load(outcome.version)
    record = {"above it": 0.5, "one": "other", "size": "10+", "huge": 1e308, "never": 3.0}
    checked = Checks(bundle.definition).loan(record)
    assert checked.problems == []
    decision = bundle.decide(checked.values)
    assert 0 <= decision.probability <= 1
    assert decision.contributions is not None
    assert bundle.base + sum(decision.contributions) == decision.margin


def test_a_median_of_the_largest_numbers_is_a_number() -> None:
    definition = parse_definition(ODD, "odd.toml")
    row = (0.5, None, None, None, "same", "1 %", 1.7976931348623157e308)
    encoding = fit_encoding(Loans.of(definition, [row] * 4), one_hot_ordered=True, impute=True)
    fills = {column.field: column.fill for column in encoding.columns if column.make == "value"}
    assert fills == {"above it": 0.5, "count.of": 0.0, "never": 0.0, "huge": row[-1]}


def test_a_definition_of_one_field_can_be_trained(tmp_path: Path) -> None:
    definition = parse_definition(
        'model = "m"\n[label]\ncolumn = "y"\nlate = 1\non_time = 0\n'
        '[[field]]\nname = "a"\nkind = "number"\nlabel = "A"\n',
        "one.toml",
    )
    rows = [{"a": str(i % 37), "y": str(int(i % 37 > 25))} for i in range(200)]
    store = Store(tmp_path / "store")
    outcomes = train(open_book(write(tmp_path / "book.csv", rows)), definition, store)
    for outcome in outcomes:
        decision = store.load(outcome.version).decide((30.0,))
        assert decision.late
        assert decision.reasons is not None
        assert [reason.feature for reason in decision.reasons] == ["a"]


def test_a_scorecards_edges_and_points_are_fit_for_json(
    trained: Path, version_of: Callable[[str], str]
) -> None:
    model = Store(trained).load(version_of("additive")).model
    assert isinstance(model, Scorecard)
    for table in model.tables:
        if isinstance(table, NumberTable):
            assert all(map(math.isfinite, table.edges))
        assert not any(point == 0 and math.copysign(1, point) < 0 for point in table.points)
