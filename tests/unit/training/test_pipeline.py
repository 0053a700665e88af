"""Training: refused tables, the contents of bundles, and recalibration."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest

from helpers.stores import VersionOf
from peerloan.book import BookError, open_book
from peerloan.loan import Checks, Definition, Loans, default_definition, parse_definition
from peerloan.model import NumberTable, PlattCalibration, Policy, Scorecard, probabilities
from peerloan.registry import Bundle, BundleError, Store, StoreError
from peerloan.reports.pages import report_page
from peerloan.reports.report_json import decode_report
from peerloan.sample_data import batches
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import reliability
from peerloan.training import (
    CANDIDATES,
    Aim,
    PublishedCandidate,
    TrainingError,
    pipeline,
    recalibrate,
    train,
)
from peerloan.training.candidates import Hyperparameters
from peerloan.training.evaluation import FIGURES
from peerloan.training.fit_encoding import fit_encoding

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
    """Train on a table that must be refused; returns the message, which must be one line."""
    store = Store(tmp_path / "store")
    book = open_book(write(tmp_path / "book.csv", rows))
    with pytest.raises((TrainingError, BookError)) as caught:
        train(book, definition or default_definition(), store, ["logistic"], fast=True)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'book.csv'}: ")
    assert "\n" not in message
    assert store.versions() == []
    assert not (tmp_path / "store").exists()
    return message.removeprefix(f"{tmp_path / 'book.csv'}: ")


# Refused tables


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
    assert "expected at least 100 loans, given 1" in refusal(tmp_path, rows[:1])


def test_a_table_without_a_row_is_refused(tmp_path: Path, rows: Rows) -> None:
    path = write(tmp_path / "book.csv", rows[:1])
    path.write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(BookError, match="expected loans, got column names and no row"):
        train(open_book(path), default_definition(), Store(tmp_path / "store"))


@pytest.mark.parametrize("label", ["2", "late", "-1", "0.5", "yes"])
def test_an_unknown_label_is_refused_with_its_row(tmp_path: Path, rows: Rows, label: str) -> None:
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


# Published bundles


@dataclass(frozen=True)
class Run:
    """A training run: its store, the published candidates, and the reported progress."""

    store: Store
    outcomes: list[PublishedCandidate]
    progress: list[tuple[str, float]]


def run_on(folder: Path, rows: Rows) -> Run:
    store, reported = Store(folder / "store"), list[tuple[str, float]]()
    book = open_book(write(folder / "book.csv", rows))
    outcomes = train(
        book,
        default_definition(),
        store,
        fast=True,
        progress=lambda step, done: reported.append((step, done)),
    )
    return Run(store, outcomes, reported)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> Run:
    return run_on(tmp_path_factory.mktemp("first"), rows)


def test_the_chosen_candidate_comes_first_and_all_are_published(first_run: Run) -> None:
    store, outcomes = first_run.store, first_run.outcomes
    assert {outcome.candidate for outcome in outcomes} == set(CANDIDATES)
    assert [outcome.is_chosen for outcome in outcomes] == [True, False, False, False, False]
    scores = [outcome.metrics["auc"] for outcome in outcomes[1:]]
    assert scores == sorted(scores, reverse=True)
    assert set(store.versions()) == {outcome.version for outcome in outcomes}
    for outcome in outcomes:
        manifest = store.manifest(outcome.version)
        assert manifest.candidate == outcome.candidate
        assert manifest.metrics == outcome.metrics
        assert (manifest.trained_on.loans, manifest.trained_on.late) == (400, 40)
        assert manifest.recalibrated_on is None


def test_a_manifest_contains_figures_intervals_candidates_and_the_trade_off(first_run: Run) -> None:
    for outcome in first_run.outcomes:
        manifest = first_run.store.manifest(outcome.version)
        assert tuple(manifest.metrics) == tuple(manifest.intervals) == FIGURES
        for name, (low, high) in manifest.intervals.items():
            assert low <= manifest.metrics[name] <= high
            assert low < high or outcome.metrics["auc"] == 0.5 or name in ("recall", "flagged")
        scores = {score.candidate: score for score in manifest.candidates}
        assert list(scores) == list(CANDIDATES)
        for score in manifest.candidates:
            assert set(score.figures) == set(score.errors) == set(FIGURES)
            assert min(score.errors.values()) >= 0
            assert score.settings
        assert scores[outcome.candidate].figures == pytest.approx(manifest.metrics)
        assert manifest.policy == Policy.balanced(0.1)
        rows = manifest.trade_off
        assert [row.flagged for row in rows] == sorted(row.flagged for row in rows)
        assert (rows[-1].flagged, rows[-1].recall) == (1.0, 1.0)


def test_a_bundle_contains_report_and_card(first_run: Run) -> None:
    for outcome in first_run.outcomes:
        folder = first_run.store.root / "versions" / outcome.version
        manifest = first_run.store.manifest(outcome.version)
        assert {"report.json", "report.html", "card.md"} <= set(manifest.files)
        data = decode_report((folder / "report.json").read_bytes())
        assert (data.version, data.created) == (outcome.version, manifest.created)
        assert report_page(data, manifest) == (folder / "report.html").read_text("utf-8")
        report = (folder / "report.html").read_text("utf-8")
        card = (folder / "card.md").read_text("utf-8")
        for name in CANDIDATES:
            assert name in report
        assert f": {outcome.candidate}\n" in card
        assert f"{outcome.metrics['auc']:.4g}" in card


def test_progress_is_reported_from_0_to_1(first_run: Run) -> None:
    assert all(0 <= done <= 1 for _, done in first_run.progress)
    by_step: dict[str, list[float]] = {}
    for step, done in first_run.progress:
        by_step.setdefault(step, []).append(done)
    assert list(by_step)[1] == "trying settings on 400 loans"
    assert {"fitting the best settings on all loans", "publishing"} <= set(by_step)
    for name in CANDIDATES:
        assert f"{name}: evaluating and reporting" in by_step
    for fractions in by_step.values():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


def test_the_same_table_gives_the_same_versions_again(
    first_run: Run, tmp_path: Path, rows: Rows
) -> None:
    again = run_on(tmp_path, rows)
    for first, second in zip(first_run.outcomes, again.outcomes, strict=True):
        one = first_run.store.manifest(first.version)
        other = again.store.manifest(second.version)
        for name in one.files:
            texts = [
                (run.store.root / "versions" / made.version / name)
                .read_bytes()
                .replace(made.version.encode(), b"")
                .replace(made.created.encode(), b"")
                for run, made in ((first_run, one), (again, other))
            ]
            assert texts[0] == texts[1], name
        same = {"version": one.version, "created": one.created, "files": one.files}
        assert msgspec.structs.replace(other, **same) == one
        for name in ("report.html", "card.md"):
            assert one.version in (first_run.store.document(one.version, name) or ""), name


def test_the_definition_in_a_bundle_has_the_ranges_and_levels_of_the_table(
    tmp_path: Path, rows: Rows
) -> None:
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
        fast=True,
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
    checked = Checks(seen).loan({"purpose": "house 2", "loan_amnt": 200_000})
    warnings = list(map(str, checked.warnings))
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


def test_a_table_with_one_sample_loan_counts_as_the_sample(tmp_path: Path, rows: Rows) -> None:
    real = [row | {"loan_id": f"L{i}"} for i, row in enumerate(rows)]
    mixed = [*real[:-1], rows[-1]]
    for name, table, sample in (("real", real, False), ("mixed", mixed, True)):
        store = Store(tmp_path / name)
        path = write(tmp_path / f"{name}.csv", table)
        (outcome,) = train(open_book(path), default_definition(), store, ["logistic"], fast=True)
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
label = "Nearly one level"
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
            "one": str(random.choice(["same", "same, nearly always"], p=[0.01, 0.99])),
            "size": str(random.choice(["< 1", "1 %", "10+"])),
            "huge": str(random.choice(["1e39", "-1e300", "1.7976931348623157e308", "0", "-0.0"])),
            "outcome": str(random.choice(["bad", "good"])),
        }
        for _ in range(150)
    ]


# scikit-learn sums a column to see whether a value is missing.
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in reduce")
@pytest.mark.parametrize("candidate", sorted(CANDIDATES))
def test_a_bundle_of_an_unusual_table_loads_and_decides(tmp_path: Path, candidate: str) -> None:
    store = Store(tmp_path / "store")
    book = open_book(write(tmp_path / "book.csv", odd_rows(np.random.default_rng(1))))
    definition = parse_definition(ODD, "odd.toml")
    (outcome,) = train(book, definition, store, [candidate], fast=True)
    bundle = store.load(outcome.version)
    record = {"above it": 0.5, "one": "other", "size": "10+", "huge": 1e308, "never": 3.0}
    checked = Checks(bundle.definition).loan(record)
    assert checked.problems == []
    decision = bundle.decide(checked.values)
    assert 0 <= decision.probability <= 1
    assert decision.contributions is not None
    assert bundle.base + sum(decision.contributions) == decision.margin


def test_the_median_of_the_largest_doubles_does_not_overflow() -> None:
    definition = parse_definition(ODD, "odd.toml")
    row = (0.5, None, None, None, "same", "1 %", 1.7976931348623157e308)
    encoding = fit_encoding(Loans.of(definition, [row] * 4), ranks=False, impute=True)
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
    book = open_book(write(tmp_path / "book.csv", rows))
    outcomes = train(book, definition, store, ["additive", "logistic"], fast=True)
    for outcome in outcomes:
        decision = store.load(outcome.version).decide((30.0,))
        assert decision.late
        assert decision.reasons is not None
        assert [reason.feature for reason in decision.reasons] == ["a"]


def test_edges_are_finite_and_no_point_is_minus_zero(trained: Path, version_of: VersionOf) -> None:
    model = Store(trained).load(version_of("additive")).model
    assert isinstance(model, Scorecard)
    for table in model.tables:
        if isinstance(table, NumberTable):
            assert all(map(math.isfinite, table.edges))
        assert not any(point == 0 and math.copysign(1, point) < 0 for point in table.points)


# Calibration


@pytest.fixture(scope="module")
def fresh() -> Rows:
    """Loans that no version was trained on."""
    return sample_rows(30_000, seed=99)


def scored(bundle: Bundle, rows: Rows) -> tuple[Numbers, Numbers]:
    """Margins and outcomes of sample loans."""
    checks = Checks(bundle.definition)
    names = bundle.definition.names
    values = [checks.loan({n: _value(row[n]) for n in names}).values for row in rows]
    margins, _ = bundle.score_many(Loans.of(bundle.definition, values))
    return margins, np.array([float(row["is_late"]) for row in rows])


def _value(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_probabilities_of_fresh_loans_are_calibrated(
    store: Store, version_of: VersionOf, fresh: Rows, candidate: str
) -> None:
    margins, late = scored(store.load(version_of(candidate)), fresh)
    found = reliability(margins, late)
    assert 0.7 < found.slope < 1.3
    assert probabilities(margins).mean() == pytest.approx(late.mean(), rel=0.2)
    assert found.error < 0.01


def test_reasons_of_a_calibrated_scorecard_are_exact(
    store: Store, version_of: VersionOf, fresh: Rows
) -> None:
    bundle = store.load(version_of("additive"))
    assert bundle.manifest.calibration == PlattCalibration(1.0, 0.0), "it is applied to the tables"
    checks = Checks(bundle.definition)
    for row in fresh[:200]:
        loan = {name: _value(row[name]) for name in bundle.definition.names}
        decision = bundle.decide(checks.loan(loan).values)
        assert decision.contributions is not None
        assert bundle.base + sum(decision.contributions) == decision.margin
        assert decision.reasons is not None
        contributions = dict(zip(bundle.definition.names, decision.contributions, strict=True))
        largest = sorted((c for c in contributions.values() if c > 0), reverse=True)[:4]
        assert [reason.contribution for reason in decision.reasons] == largest
        for reason in decision.reasons:
            assert contributions[reason.feature] == reason.contribution


@pytest.mark.parametrize("resampling", ["class-weight", "smote"])
def test_resampled_candidates_are_calibrated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample_book: Path,
    fresh: Rows,
    resampling: Literal["class-weight", "smote"],
) -> None:
    """The fit sees half of the loans late; the published version has the true late rate."""
    stumps = {
        "depth": 1,
        "rounds": 80,
        "eta": 0.1,
        "columns": 1.0,
        "min_child_weight": 10,
        "monotone": False,
    }
    grids = {
        "additive": [Hyperparameters(stumps, resampling)],
        "logistic": [Hyperparameters({"C": 0.1}, resampling)],
    }
    monkeypatch.setattr(pipeline, "read_grids", lambda: grids)
    store = Store(tmp_path / "store")
    outcomes = train(open_book(sample_book), default_definition(), store, tuple(grids))
    for outcome in outcomes:
        margins, late = scored(store.load(outcome.version), fresh)
        assert probabilities(margins).mean() == pytest.approx(late.mean(), rel=0.2)
        assert outcome.metrics["brier"] < 0.03
        for each in store.manifest(outcome.version).candidates:
            assert each.settings.endswith(resampling)


# Aims, later books and groups


def test_an_aim_of_capacity_flags_no_more_than_its_share(tmp_path: Path, sample_book: Path) -> None:
    store = Store(tmp_path / "store")
    (outcome,) = train(
        open_book(sample_book),
        default_definition(),
        store,
        ["logistic"],
        aim=Aim("capacity", 0.1),
        fast=True,
    )
    manifest = store.manifest(outcome.version)
    assert (manifest.policy.aim, manifest.policy.aim_value) == ("capacity", 0.1)
    assert outcome.metrics["flagged"] == pytest.approx(0.1, abs=0.01)
    assert outcome.metrics["flagged"] <= 0.1 + 1e-9


def test_an_impossible_aim_is_refused_before_fitting(tmp_path: Path, rows: Rows) -> None:
    book, steps = open_book(write(tmp_path / "book.csv", rows)), list[str]()
    for aim in (Aim("recall", 1.5), Aim("cost", 0.0), Aim("profit", 3.0)):
        with pytest.raises(TrainingError, match="expected "):
            train(
                book,
                default_definition(),
                Store(tmp_path / "store"),
                aim=aim,
                progress=lambda step, _done: steps.append(step),
            )
    assert steps == []


def test_a_capacity_that_no_threshold_can_meet_is_refused(tmp_path: Path, rows: Rows) -> None:
    # Of one field with two levels, each of half of the book.
    one = msgspec.structs.replace(default_definition(), fields=(default_definition()["grade"],))
    same = [row | {"grade": "AB"[place % 2]} for place, row in enumerate(rows)]
    store = Store(tmp_path / "store")
    with pytest.raises(TrainingError, match="logistic: capacity: no threshold of this version"):
        train(
            open_book(write(tmp_path / "book.csv", same)),
            one,
            store,
            ["logistic"],
            aim=Aim("capacity", 0.01),
            fast=True,
        )
    assert store.versions() == []


def test_a_later_book_is_evaluated_with_the_deployed_form(tmp_path: Path, rows: Rows) -> None:
    later = sample_rows(1000, seed=8)
    for i, row in enumerate(later):
        row["is_late"] = "1" if i % 20 == 0 else "0"
    later[0]["purpose"] = "never seen"
    store = Store(tmp_path / "store")
    outcomes = train(
        open_book(write(tmp_path / "book.csv", rows)),
        default_definition(),
        store,
        ["additive", "boosted"],
        later=open_book(write(tmp_path / "later.csv", later)),
        fast=True,
    )
    for outcome in outcomes:
        bundle = store.load(outcome.version)
        margins, late = scored(bundle, later)
        found = outcome.metrics
        assert {f"later_{name}" for name in FIGURES} < set(found)
        flagged = bundle.policy.late_many(margins)
        assert found["later_flagged"] == pytest.approx(flagged.mean(), abs=2e-3)
        assert found["later_recall"] == pytest.approx(flagged[late == 1].mean(), abs=0.05)
        brier = float(np.mean((probabilities(margins) - late) ** 2))
        assert found["later_brier"] == pytest.approx(brier, abs=1e-6)
        low, high = bundle.manifest.intervals["later_auc"]
        assert low < found["later_auc"] < high


# Recalibration


@pytest.fixture(scope="module")
def newer() -> Rows:
    """A later time, in which late loans are three times as frequent."""
    rows = sample_rows(12_000, seed=21)
    late = [row for row in rows if row["is_late"] == "1"]
    on_time = [row for row in rows if row["is_late"] == "0"]
    return late + on_time[: 12 * len(late)]


@pytest.fixture
def newer_book(tmp_path: Path, newer: Rows) -> Path:
    return write(tmp_path / "newer.csv", newer)


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_a_recalibrated_version_has_the_same_ranking_and_fits_the_new_book(
    store: Store,
    version_of: VersionOf,
    newer: Rows,
    newer_book: Path,
    candidate: str,
) -> None:
    version = version_of(candidate)
    before = contents(store.root / "versions" / version)
    outcome = recalibrate(version, open_book(newer_book), store)
    assert outcome.version != version
    assert outcome.version in store.versions()
    assert contents(store.root / "versions" / version) == before, "the old version must not change"
    old, new = store.load(version), store.load(outcome.version)

    margins, late = scored(old, newer)
    changed, _ = scored(new, newer)
    order = np.argsort(margins, kind="stable")
    # Points are rounded to 2⁻³², so equal margins may differ by as little.
    assert np.diff(changed[order]).min() > -1e-8
    slope, intercept = np.polyfit(margins, changed, 1)
    assert changed == pytest.approx(slope * margins + intercept, abs=1e-6)
    assert probabilities(margins).mean() < 0.6 * late.mean()
    assert probabilities(changed).mean() == pytest.approx(late.mean(), rel=0.05)

    manifest, was = new.manifest, old.manifest
    assert manifest.recalibrated_on is not None
    assert manifest.recalibrated_on.loans == len(newer)
    assert manifest.recalibrated_on.late == int(late.sum())
    assert manifest.recalibrated_on.sample
    assert manifest.trained_on == was.trained_on
    assert manifest.candidate == was.candidate == candidate
    assert manifest.policy == Policy.balanced(float(late.mean())), "the aim stays, not the rate"
    assert (outcome.metrics, outcome.is_chosen) == (manifest.metrics, True)
    assert new.profile.late == pytest.approx(late.mean())
    assert new.profile.columns == old.profile.columns
    assert new.definition == old.definition
    if candidate == "basic":
        same = {"model.onnx", "encoding.json", "background.json"}
        assert all(manifest.files[name] == was.files[name] for name in same)


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_reasons_of_a_recalibrated_version_keep_their_order(
    store: Store,
    version_of: VersionOf,
    newer: Rows,
    newer_book: Path,
    candidate: str,
) -> None:
    version = version_of(candidate)
    outcome = recalibrate(version, open_book(newer_book), store)
    old, new = store.load(version), store.load(outcome.version)
    checks = Checks(old.definition)
    for row in newer[:20]:
        values = checks.loan({name: _value(row[name]) for name in old.definition.names}).values
        one, other = old.decide(values), new.decide(values)
        assert one.reasons is not None
        assert other.reasons is not None
        assert other.contributions is not None
        assert [(each.feature, each.sentence) for each in other.reasons] == [
            (each.feature, each.sentence) for each in one.reasons
        ]
        assert new.base + sum(other.contributions) == other.margin


def test_a_recalibrated_version_keeps_its_aim_or_gets_another(
    store: Store, version_of: VersionOf, newer: Rows, newer_book: Path
) -> None:
    first = version_of("additive")
    policy = Policy.by_aim("capacity", 0.1, store.manifest(first).trade_off)
    version = store.publish_with_policy(first, policy)
    outcome = recalibrate(version, open_book(newer_book), store)
    manifest = store.manifest(outcome.version)
    assert (manifest.policy.aim, manifest.policy.aim_value) == ("capacity", 0.1)
    assert manifest.policy.threshold > 1.5 * policy.threshold
    assert outcome.metrics["flagged"] <= 0.1
    margins, _ = scored(store.load(outcome.version), newer)
    assert manifest.policy.late_many(margins).mean() == pytest.approx(0.1, abs=0.02)

    other = recalibrate(version, open_book(newer_book), store, aim=Aim("recall", 0.7))
    manifest = store.manifest(other.version)
    assert (manifest.policy.aim, manifest.policy.aim_value) == ("recall", 0.7)
    assert other.metrics["recall"] >= 0.7


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_recalibrating_twice_equals_recalibrating_to_the_last_book(
    store: Store,
    version_of: VersionOf,
    tmp_path: Path,
    newer: Rows,
    newer_book: Path,
    candidate: str,
) -> None:
    version = version_of(candidate)
    between = write(tmp_path / "between.csv", sample_rows(4000, seed=31))
    once = recalibrate(version, open_book(newer_book), store)
    middle = recalibrate(version, open_book(between), store)
    twice = recalibrate(middle.version, open_book(newer_book), store)
    one, _ = scored(store.load(once.version), newer)
    other, _ = scored(store.load(twice.version), newer)
    assert other == pytest.approx(one, abs=1e-4)
    recalibrated_on = store.manifest(twice.version).recalibrated_on
    assert recalibrated_on == store.manifest(once.version).recalibrated_on


def test_recalibration_refuses_unknown_versions_and_unsuitable_books(
    store: Store, version_of: VersionOf, tmp_path: Path, rows: Rows
) -> None:
    versions = store.versions()
    with pytest.raises(StoreError, match="no version 'nothing'"):
        recalibrate("nothing", open_book(write(tmp_path / "book.csv", rows)), store)
    few = write(tmp_path / "few.csv", rows[:50])
    with pytest.raises(TrainingError, match="expected at least 100 loans, given 50"):
        recalibrate(version_of("additive"), open_book(few), store)
    # The late loans are those with the least risk by the version: no positive slope fits them.
    rates = sorted(float(row["int_rate"]) for row in rows)
    reversed_rows = [
        row | {"is_late": str(int(float(row["int_rate"]) <= rates[len(rates) // 4]))}
        for row in rows
    ]
    against = write(tmp_path / "against.csv", reversed_rows)
    with pytest.raises(TrainingError, match="no shift and scale of its log-odds fits them"):
        recalibrate(version_of("additive"), open_book(against), store)
    damaged = version_of("basic")
    (store.root / "versions" / damaged / "encoding.json").unlink()
    with pytest.raises(BundleError, match=r"encoding\.json"):
        recalibrate(damaged, open_book(tmp_path / "book.csv"), store)
    assert store.versions() == versions


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
