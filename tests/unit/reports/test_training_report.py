"""The training report: every section is there, right, and the page stands alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Literal

import numpy as np
import pytest
from msgspec.structs import replace as replace_field

from peerloan.loan import Definition, parse_definition
from peerloan.model import Encoding, LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.arithmetic import margin, to_unit
from peerloan.registry import Manifest, OnnxParts, TrainedOn
from peerloan.reports.bundle_documents import new_version_documents
from peerloan.reports.report_json import TrainingReport, decode_report
from peerloan.stats.arrays import Numbers
from peerloan.training import report_data
from peerloan.training.calibration import cross_fitted
from peerloan.training.candidate_result import CandidateResult, LaterBookScores
from peerloan.training.candidates import Hyperparameters
from peerloan.training.evaluation import FIGURES, performance_figures
from peerloan.training.resampling import Resampling
from peerloan.training.search import SearchResult, Trial, choose
from peerloan.training.table import Group
from peerloan.training.trade_off import trade_off

LOANS, FOLDS = 2_000, 4
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
unit = "euros"
seen = [100, 90000]
[[field]]
name = "rate"
kind = "number"
label = "Rate"
percent = true
missing = true
[[field]]
name = "colour"
kind = "category"
label = "Colour"
[[field]]
name = "idle"
kind = "whole"
label = "Idle"
"""
DEFINITION = parse_definition(TEXT, "cars.toml")
RANDOM = np.random.default_rng(11)
LATE = (np.arange(LOANS) % 20 == 0).astype(np.float64)
SIGNAL = RANDOM.normal(size=LOANS) + LATE
FOLD = np.arange(LOANS) // 20 % FOLDS


def unit(*values: float) -> tuple[float, ...]:
    return tuple(float(to_unit(value)) for value in values)


SCORECARD = Scorecard(
    margin(0.05),
    (
        NumberTable("pay", (1_000.0, 2_500.0), unit(0.7, 0.0, -0.7), 0.0),
        NumberTable("rate", (0.1306,), unit(-0.2, 0.2), float(to_unit(0.1))),
        LevelTable("colour", ("red", "blue"), unit(-0.1, 0.6), 0.0, 0.0),
        NumberTable("idle", (), (0.0,), 0.0),
    ),
)
ONNX = OnnxParts(b"", Encoding(()))


def trial(candidate: str, signal: Numbers, how: Resampling = "none", shift: float = -3.0) -> Trial:
    threshold = Policy.by_cost().threshold_margin
    return Trial.of(
        candidate, Hyperparameters({"depth": 1}, how), signal + shift, LATE, FOLD, threshold
    )


GOOD = trial("additive", SIGNAL)
WORSE = trial("basic", SIGNAL + 2 * RANDOM.normal(size=LOANS))
SMOTE = trial("additive", SIGNAL + RANDOM.normal(size=LOANS), "smote", shift=1.0)
FOUND = SearchResult((GOOD, WORSE), (WORSE, SMOTE, GOOD), *choose([GOOD, WORSE]))


def study_of(
    own: Trial = GOOD,
    definition: Definition = DEFINITION,
    estimator: Scorecard | OnnxParts = SCORECARD,
    sample: bool = False,
    source: str = "cars.csv",
) -> CandidateResult:
    return CandidateResult(
        definition=definition,
        trained_on=TrainedOn(source, "ab" * 32, LOANS, int(LATE.sum()), sample),
        search=FOUND,
        trial=own,
        margins=own.calibrated,
        late=LATE,
        fold=FOLD,
        estimator=estimator,
        policy=Policy.by_cost(),
        trade_off=trade_off(own.calibrated, LATE),
        metrics={name: own.mean(name) for name in FIGURES},
        intervals={"auc": (0.71, 0.81)},
    )


def documents(study: CandidateResult) -> Mapping[str, str]:
    """The documents of the version, as they stand in its bundle."""
    manifest = Manifest(
        format=1,
        arithmetic=1,
        version="additive-1",
        model="cars",
        candidate=study.trial.candidate,
        kind="scorecard",
        created="2026-01-01T00:00:00+00:00",
        trained_on=study.trained_on,
        metrics=study.metrics,
        policy=study.policy,
        libraries={},
        golden=(),
        files={},
    )
    return new_version_documents(study.definition, report_data.training_report(study))(manifest)


def training_report(study: CandidateResult) -> str:
    return documents(study)["report.html"]


LATER = LaterBookScores("next.csv", cross_fitted(GOOD.margins, LATE, FOLD)[::2] + 1, LATE[::2])
GROUP = Group("town", tuple("A" if place % 3 else None for place in range(LOANS)))
FULL = replace(study_of(), later=LATER, groups=(GROUP,))


@pytest.fixture(scope="module")
def page() -> str:
    return training_report(FULL)


class Page(HTMLParser):
    """What a browser would see: tags, ids, links, the text, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            # A strict Content-Security-Policy admits neither handlers nor styles of elements.
            assert not name.startswith("on")
            assert name != "style"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def words(text: str) -> str:
    return " ".join(Page(text).text.split())


def section(text: str, name: str) -> str:
    """The words of a section, up to the next heading of its rank."""
    start = text.index(f'<h2 id="{name}">')
    rest = text[start + 4 :]
    end = rest.find("<h2")
    return " ".join(re.sub(r"<[^>]+>", " ", rest[: end if end > 0 else None]).split())


def test_the_page_is_rendered_from_the_data_that_stand_beside_it(page: str) -> None:
    written = documents(FULL)
    report = decode_report(written["report.json"])
    assert isinstance(report, TrainingReport)
    assert (report.version, report.created) == ("additive-1", "2026-01-01T00:00:00+00:00")
    assert report == replace_field(
        report_data.training_report(FULL), version=report.version, created=report.created
    )
    assert written["report.html"] == page
    assert "Version <code>additive-1</code>, made 2026-01-01T00:00:00+00:00" in page
    assert [fold.auc for fold in report.folds] == [fold["auc"] for fold in GOOD.by_fold]
    assert report.trial.mean == {name: GOOD.mean(name) for name in FIGURES}


@pytest.mark.parametrize("kind", ["full", "bare", "onnx"])
def test_the_page_stands_alone(kind: str) -> None:
    study = {"full": FULL, "bare": study_of(), "onnx": study_of(WORSE, estimator=ONNX)}[kind]
    text = training_report(study)
    found = Page(text)
    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    assert not found.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert "@import" not in text
    assert not re.search(r"https?:|url\((?!#)", text)
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert found.text.count("None") == 1  # the column of no resampling
    assert "nan" not in found.text.split()


def test_the_same_study_gives_the_same_page(page: str) -> None:
    assert training_report(FULL) == page


def test_the_choice_is_said_in_words(page: str) -> None:
    said = section(page, "summary")
    assert f"additive was chosen: {FOUND.why}." in said
    error = f"standard error {GOOD.error('auc'):.4f}"
    assert f"AUC {GOOD.mean('auc'):.4f}, {error}" in said
    assert "Not the chosen" not in page
    other = training_report(study_of(WORSE, estimator=ONNX))
    assert "Not the chosen candidate." in words(other)
    assert "basic, which was not chosen" in section(other, "summary")


def test_a_model_of_the_sample_is_a_warning() -> None:
    assert "Trained on the built-in sample." in words(training_report(study_of(sample=True)))
    assert "Trained on the built-in sample." not in words(training_report(study_of()))


def test_candidates_stand_with_their_errors_and_the_chosen_one_is_marked(page: str) -> None:
    said = section(page, "candidates")
    for each in (GOOD, WORSE):
        for figure in ("auc", "log_loss", "recall", "average_precision", "ks", "gini"):
            assert f"{each.mean(figure):.4f} ± {each.error(figure):.4f}" in said
        assert f"{each.mean('brier'):.5f} ± {each.error('brier'):.5f}" in said
    assert "additive chosen this report" in said
    assert said.count("chosen") == 1


def test_what_resampling_did_is_said(page: str) -> None:
    said = section(page, "candidates")
    gain = SMOTE.mean("auc") - GOOD.mean("auc")
    assert "Neither class weights nor SMOTE made any candidate clearly better." in said
    assert f"smote with additive (−{abs(gain):.4f})" in said
    assert f"{SMOTE.mean('auc'):.4f} ±" in said
    assert "3 trials" in section(page, "tried")
    assert section(page, "tried").count("depth=1") == 3


def test_one_resampling_alone_is_not_compared() -> None:
    found = SearchResult((GOOD, WORSE), (GOOD, WORSE), GOOD, "it is the best")
    text = training_report(replace(study_of(), search=found))
    assert "nothing to compare" in section(text, "candidates")


@pytest.mark.parametrize(("riskier", "said"), [("higher", True), ("lower", False), (None, False)])
def test_what_goes_against_a_fields_direction_is_said(
    riskier: Literal["higher", "lower"] | None, said: bool
) -> None:
    """The card's odds fall by e^1.4, from 0.7 to −0.7, as pay rises."""
    fields = tuple(
        replace_field(field, riskier=riskier) if field.name == "pay" else field
        for field in DEFINITION.fields
    )
    definition = replace_field(DEFINITION, fields=fields)
    text = section(training_report(study_of(definition=definition)), "shapes")
    assert ("goes against that by a factor of up to 4.06 in the odds" in text) == said


def test_calibration_is_shown_before_and_after() -> None:
    own = trial("additive", SIGNAL, shift=0.0)  # as after class weights: far too high
    said = section(training_report(study_of(own)), "calibration")
    p = 1 / (1 + np.exp(-own.margins))
    q = 1 / (1 + np.exp(-cross_fitted(own.margins, LATE, FOLD)))
    rows = re.findall(
        r"(none|smote)(?: this version)? 2,000 (before|after) (.+?) % (\S+) % (\S+)", said
    )
    assert [row[:2] for row in rows] == [
        *(("none", "before"), ("none", "after")),
        *(("smote", "before"), ("smote", "after")),
    ]
    for row, probabilities in ((rows[0], p), (rows[1], q)):
        assert float(row[3]) == pytest.approx(100 * probabilities.mean(), rel=0.01)
        assert float(row[4]) == pytest.approx(np.mean((probabilities - LATE) ** 2), abs=1e-5)


def test_the_trade_off_is_that_of_the_out_of_fold_margins(page: str) -> None:
    margins, policy = FULL.margins, FULL.policy
    said = section(page, "policy")
    flagged = policy.late_many(margins)
    yes, found = flagged.sum(), LATE[flagged].sum()
    cost = 1000 * ((yes - found) + 20 * (LATE.sum() - found)) / LOANS
    row = re.search(r"4\.76 % chosen (\S+) % (\S+) % (\S+) % (\S+) (\S+)", said)
    assert row is not None
    expected = [100 * yes / LOANS, 100 * found / LATE.sum(), 100 * found / yes]
    lift = found / yes / LATE.mean()
    assert [float(each) for each in row.groups()] == pytest.approx(
        [*expected, lift, cost], rel=0.01
    )
    assert 14 <= section(page, "policy").split("Bands")[0].count(" % ") / 4 <= 20
    assert "Flagging no loan would cost 1,000, flagging every loan 950" in said


def test_every_loan_is_in_a_band(page: str) -> None:
    rows = re.findall(r"<tr><td>(Low|Medium|High|Very high)</td><td>[^<]*</td>"
                      r'<td class="n">([\d,]+)</td>', page)  # fmt: skip
    counts = [int(count.replace(",", "")) for _, count in rows]
    assert len(counts) == 8  # of the training table and of the later book
    assert sum(counts[:4]) == LOANS
    assert sum(counts[4:]) == LOANS // 2


def test_an_empty_band_has_no_rate() -> None:
    study = study_of()
    high = Policy.at(0.9, "cost", 1)
    text = training_report(replace(study, policy=high))
    assert re.search(r"Very high 95\.00 % and above 0 – – – –", section(text, "policy"))


def test_every_fold_stands_by_itself(page: str) -> None:
    said = section(page, "stability")
    for each in GOOD.by_fold:
        assert f"500 25 {each['auc']:.4f} {each['ks']:.4f}" in said


def test_a_later_book_is_judged_and_doubted_where_its_rate_differs(page: str) -> None:
    said = section(page, "later")
    judged = performance_figures(LATER.late, LATER.margins, FULL.policy.threshold_margin)
    assert f"{judged['auc']:.4f}" in said
    assert "too high for them, by more than chance explains" in said
    assert 'id="later"' not in training_report(study_of())
    assert "No later book was given" in words(training_report(study_of()))


def test_a_later_book_of_one_outcome_is_not_judged() -> None:
    later = LaterBookScores("next.csv", LATER.margins, np.zeros(len(LATER.late)))
    text = training_report(replace(study_of(), later=later))
    assert "All of these loans have the same outcome" in section(text, "later")


def test_a_scorecard_s_shapes_are_exact_and_relative_to_the_average(page: str) -> None:
    said = section(page, "shapes")
    assert "below 1,000 0.700000 × 2.014" in said
    assert "2,500 and above −0.700000 × 0.497" in said
    assert "below 13.06 % −0.200000" in said
    assert "not given 0.100000" in said
    assert "any other 0.000000 × 1.000" in said
    for name in ("pay", "rate", "colour"):
        assert f'aria-label="Odds by {name}"' in page
    assert "The model does not use this field" in said
    assert page.count("<details>") == 4  # the three fields that are used, and the trials


def test_the_scorecard_as_points(page: str) -> None:
    said = section(page, "points")
    # 487.12 − 28.85 · ln(0.05 / 0.95)
    assert "Start at 572 ," in said
    assert "600 points are 50 loans on time for each late one" in said
    assert "below 1,000 −20" in said
    assert "2,500 and above +20" in said
    assert "blue −17" in said
    assert "600 1.96 %" in said
    assert "scorecard.json" in said


def test_without_a_scorecard_it_says_how_reasons_are_made() -> None:
    text = training_report(study_of(WORSE, estimator=ONNX))
    assert "permutation sampling" in section(text, "shapes")
    assert 'id="points"' not in text


def test_fairness_is_shown_for_each_named_column(page: str) -> None:
    said = section(page, "fairness")
    assert "By town" in said
    assert "not given" in said
    assert "Being flagged is the unfavourable outcome" in said
    without = section(training_report(study_of()), "fairness")
    assert "No column was named" in without


def test_the_document_says_what_only_the_owner_knows(page: str) -> None:
    said = section(page, "document")
    assert said.count("To be filled in by the owner") >= 8
    for part in ("intended use", "Assumptions", "Limits", "Independent validation", "Monitoring",
                 "Ownership", "SR 11-7", "SR 26-2"):  # fmt: skip
        assert part in said


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    definition = parse_definition(
        TEXT.replace('"colour"', f"'''{evil}'''").replace('"Colour"', "'<b>x</b>'"), "evil.toml"
    )
    colour = LevelTable(evil, ("<i>red</i>", "blue"), unit(-0.1, 0.6), 0.0, 0.0)
    study = replace(
        study_of(
            definition=definition,
            estimator=Scorecard(0.0, (*SCORECARD.tables[:2], colour, SCORECARD.tables[3])),
            source="<img src=x>.csv",
        ),
        later=LaterBookScores("<u>next", LATER.margins, LATER.late),
        groups=(Group("<u>", tuple("<u>" if place % 2 else "B" for place in range(LOANS))),),
    )
    found = Page(training_report(study))
    assert not found.open
    assert not found.tags & {"script", "b", "img", "u"}
    assert "<i>red</i>" in found.text


@pytest.mark.parametrize("aim", ["capacity", "recall", "f2"])
def test_any_aim_is_reported(aim: str) -> None:
    study = study_of()
    policy = Policy.by_aim(aim, 0.3, study.trade_off)
    said = section(training_report(replace(study, policy=policy)), "policy")
    assert "the default ratio: this policy has another aim" in said


def test_edges_that_no_axis_holds_are_left_to_the_table() -> None:
    wide = NumberTable("pay", (-1e308, 1e308), unit(0.7, 0.0, -0.7), 0.0)
    text = training_report(study_of(estimator=Scorecard(0.0, (wide, *SCORECARD.tables[1:]))))
    assert 'aria-label="Odds by pay"' not in text
    assert "3 exact lines" in words(text)
