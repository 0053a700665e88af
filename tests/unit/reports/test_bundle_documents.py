"""Reports of versions that were made from another version: contents and self-contained pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from helpers.drafts import report_manifest
from helpers.report_pages import ReportPage
from peerloan.loan import Definition, Loans, parse_definition
from peerloan.model import NumberTable, Policy, ReferenceProfile, Scorecard
from peerloan.registry import Manifest, Store, TrainedOn, ValidationFigures, draft
from peerloan.reports.bundle_documents import new_policy_documents, new_version_documents
from peerloan.reports.policy_figures import ScoredOutcomes, at_policy, policy_figures
from peerloan.reports.report_json import PolicyReport, RecalibrationReport, decode_report
from peerloan.stats.calibration import reliability
from peerloan.stats.discrimination import auc, auc_interval
from peerloan.training.calibration import fit_calibration
from peerloan.training.trade_off import trade_off

LOANS = 2_000
TEXT = """
model = "cars"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[[field]]
name = "pay"
kind = "number"
label = "Pay"
"""
LATE = (np.arange(LOANS) % 25 == 0).astype(np.float64)
RAW = np.random.default_rng(3).normal(size=LOANS) + LATE
SCALE = fit_calibration(RAW, LATE)
AFTER = SCALE.apply(RAW)
TRADE_OFF = trade_off(AFTER, LATE)
DEFINITION = parse_definition(TEXT, "cars.toml")


def recalibrated(
    book: str = "new<er>.csv", trained: str = "ab" * 32, sample: bool = False
) -> RecalibrationReport:
    area = auc(RAW, LATE.astype(np.int64))
    assert area is not None
    policy, after = Policy.by_cost(), ScoredOutcomes(AFTER, LATE)
    return RecalibrationReport(
        model="cars",
        candidate="additive",
        policy=policy,
        base="additive-1",
        label="outcome",
        late="bad",
        trained_on=TrainedOn("cars.csv", trained, 9_000, 300, sample),
        book=TrainedOn(book, "cd" * 32, LOANS, int(LATE.sum()), False),
        doubts=(),
        scale=SCALE,
        before=reliability(RAW, LATE),
        after=reliability(AFTER, LATE),
        auc=area,
        auc_interval=auc_interval(LATE, area),
        at_threshold=at_policy(policy, after),
        thresholds=policy_figures(policy, TRADE_OFF, after),
    )


def publish(store: Store, documents: bool = True, sample: bool = False) -> str:
    """Publish a version with the report, or one of a release before `report.json`."""
    report = recalibrated(sample=sample)
    loans = Loans.of(DEFINITION, [(1.0,), (2.0,)])

    def write(manifest: Manifest) -> Mapping[str, str]:
        return {"report.html": "<p>mine</p>", "card.md": "# mine"}

    return store.publish(
        draft(
            candidate="additive",
            definition=DEFINITION,
            estimator=Scorecard(-2.0, (NumberTable("pay", (), (0.0,), 0.0),)),
            policy=report.policy,
            profile=ReferenceProfile.of(loans, np.zeros(2), np.full(2, 0.1)),
            trained_on=report.trained_on,
            validation=ValidationFigures({"auc": 0.5, "recall": 0.1}, {}, (), TRADE_OFF),
            libraries={},
            write_documents=new_version_documents(DEFINITION, report) if documents else write,
        )
    )


def page(store: Store, version: str) -> str:
    text = store.document(version, "report.html")
    assert text is not None
    return text


def page_of(report: RecalibrationReport, definition: Definition = DEFINITION) -> str:
    manifest = report_manifest(report.trained_on, report.policy, version="additive-2")
    return new_version_documents(definition, report)(manifest)["report.html"]


def words(html: str) -> str:
    return ReportPage(html).words


def test_a_recalibration_report_has_figures_before_and_after() -> None:
    page = page_of(recalibrated())
    text = words(page)
    before, after = reliability(RAW, LATE), reliability(AFTER, LATE)
    assert f"Brier score {before.brier:.5f} {after.brier:.5f}" in text
    assert f"Slope {before.slope:.2f} {after.slope:.2f}" in text
    assert "Expected after 4.00 %" in text
    assert "Late rate of the book 4.00 %" in text
    assert f"multiplies its log-odds by {SCALE.slope:.4f} and adds −{-SCALE.intercept:.4f}." in text
    at = at_policy(Policy.by_cost(), ScoredOutcomes(AFTER, LATE))
    assert f"{100 * at.recall:.1f} % of the late loans are among them" in text
    assert "from additive-1 with the outcomes of new<er>.csv" in text
    assert "with the outcomes of new&lt;er&gt;.csv" in page
    assert "that the version was trained on" not in text
    assert not re.search(r"(src|href)=[\"\'](?!#)", page)


def test_a_recalibration_report_warns_of_the_training_table_and_of_the_sample() -> None:
    assert "These are the loans that the version was trained on" in words(
        page_of(recalibrated(trained="cd" * 32))
    )
    assert "no decision about a person may rest on" in words(page_of(recalibrated(sample=True)))


@pytest.mark.parametrize("times", [1, 2])
def test_a_changed_policy_is_noted_below_the_heading(tmp_path: Path, times: int) -> None:
    store = Store(tmp_path / "store")
    first = version = publish(store)
    for time in range(times):
        policy = Policy.by_cost(6 + time)
        version = store.publish_with_policy(version, policy, new_policy_documents(store, version))
    head = words(page(store, version).split("<nav", 1)[0])
    # The notice is there once. It has the current policy, and names the report's own version.
    assert head.count(f"was changed after this report was written for {first}.") == 1
    assert f"A loan is flagged (Yes) from a probability of {1 / (6 + times):.4f} on" in head
    assert head.count("A loan is flagged (Yes)") == 1
    assert "was changed after" not in page(store, first)
    # Without the notice the page equals that of the first version; so do the data.
    rest = re.sub(r'<p class="warning" role="note">.*?</p>\n', "", page(store, version))
    assert rest == page(store, first)
    assert store.document(version, "report.json") == store.document(first, "report.json")
    assert f"Version `{version}`" in (store.document(version, "card.md") or "")


@pytest.mark.parametrize(("times", "sample"), [(1, False), (1, True), (2, False)])
def test_a_version_of_a_release_before_report_data_gets_a_page_of_its_policy(
    tmp_path: Path, times: int, sample: bool
) -> None:
    store = Store(tmp_path / "store")
    first = version = publish(store, documents=False, sample=sample)
    assert store.load(first).version == first
    for time in range(times):
        policy = Policy.by_cost(6 + time)
        version = store.publish_with_policy(version, policy, new_policy_documents(store, version))
    text = page(store, version)
    assert f"from a probability of {1 / (6 + times):.4f} on" in words(
        text.split("<h2", 1)[0] if times == 2 else text
    )
    assert 'href="base_report.html"' in text
    assert store.document(version, "base_report.html") == "<p>mine</p>"
    assert ("no decision about a person may rest on" in words(text)) == sample
    report = decode_report(store.document(version, "report.json") or "")
    assert isinstance(report, PolicyReport)
    assert (report.base, report.policy) == (first, Policy.by_cost(6))
    assert store.load(version).policy == policy


def test_report_data_of_a_later_release_are_refused_with_the_file_name(tmp_path: Path) -> None:
    data = msgspec.json.encode({"type": "unknown"})
    with pytest.raises(ValueError, match=r"report\.json can't be read"):
        decode_report(data)
