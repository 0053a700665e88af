"""The training report: the contents of each section, and the self-contained page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from msgspec.structs import replace as replace_field

from helpers.drafts import report_manifest
from helpers.report_pages import ReportPage, check_self_contained
from peerloan.formatting import percent
from peerloan.loan import Definition, parse_definition
from peerloan.model import Encoding, LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.arithmetic import margin, to_unit
from peerloan.model.policy import USUAL_AIMS, spell_aim
from peerloan.registry import OnnxParts, TrainedOn
from peerloan.reports.aims import compare_aims
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


def make_trial(
    candidate: str, signal: Numbers, how: Resampling = "none", shift: float = -3.0
) -> Trial:
    threshold = Policy.by_cost().threshold_margin
    return Trial.of(
        candidate, Hyperparameters({"depth": 1}, how), signal + shift, LATE, FOLD, threshold
    )


GOOD = make_trial("additive", SIGNAL)
WORSE = make_trial("basic", SIGNAL + 2 * RANDOM.normal(size=LOANS))
SMOTE = make_trial("additive", SIGNAL + RANDOM.normal(size=LOANS), "smote", shift=1.0)
SEARCH = SearchResult((GOOD, WORSE), (WORSE, SMOTE, GOOD), *choose([GOOD, WORSE]))


def result_of(
    trial: Trial = GOOD,
    definition: Definition = DEFINITION,
    estimator: Scorecard | OnnxParts = SCORECARD,
    sample: bool = False,
    source: str = "cars.csv",
) -> CandidateResult:
    return CandidateResult(
        definition=definition,
        trained_on=TrainedOn(source, "ab" * 32, LOANS, int(LATE.sum()), sample),
        search=SEARCH,
        trial=trial,
        margins=trial.calibrated,
        late=LATE,
        fold=FOLD,
        estimator=estimator,
        policy=Policy.by_cost(),
        trade_off=trade_off(trial.calibrated, LATE),
        metrics={name: trial.mean(name) for name in FIGURES},
        intervals={"auc": (0.71, 0.81)},
    )


def documents(study: CandidateResult) -> Mapping[str, str]:
    """The documents of the version's bundle."""
    manifest = report_manifest(
        study.trained_on,
        study.policy,
        candidate=study.trial.candidate,
        metrics=study.metrics,
        trade_off=study.trade_off,
    )
    return new_version_documents(study.definition, report_data.training_report(study))(manifest)


def training_report(study: CandidateResult) -> str:
    return documents(study)["report.html"]


LATER = LaterBookScores("next.csv", cross_fitted(GOOD.margins, LATE, FOLD)[::2] + 1, LATE[::2])
GROUP = Group("town", tuple("A" if place % 3 else None for place in range(LOANS)))
FULL = replace(result_of(), later=LATER, groups=(GROUP,))


@pytest.fixture(scope="module")
def page() -> str:
    return training_report(FULL)


def words(html: str) -> str:
    return ReportPage(html).words


def section(text: str, name: str) -> str:
    """The words of a section, up to the next heading of the same level."""
    start = text.index(f'<h2 id="{name}">')
    rest = text[start + 4 :]
    end = rest.find("<h2")
    return " ".join(re.sub(r"<[^>]+>", " ", rest[: end if end > 0 else None]).split())


def test_the_page_is_rendered_from_the_report_data(page: str) -> None:
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
def test_the_page_is_self_contained(kind: str) -> None:
    study = {"full": FULL, "bare": result_of(), "onnx": result_of(WORSE, estimator=ONNX)}[kind]
    page = check_self_contained(training_report(study))
    assert page.text.count("None") == 1  # the column of no resampling
    assert "nan" not in page.text.split()


def test_the_same_result_gives_the_same_page(page: str) -> None:
    assert training_report(FULL) == page


def test_the_choice_is_described_in_words(page: str) -> None:
    text = section(page, "summary")
    assert f"additive was chosen: {SEARCH.why}." in text
    error = f"standard error {GOOD.error('auc'):.4f}"
    assert f"AUC {GOOD.mean('auc'):.4f}, {error}" in text
    assert "Not the chosen" not in page
    other = training_report(result_of(WORSE, estimator=ONNX))
    assert "Not the chosen candidate." in words(other)
    assert "basic, which was not chosen" in section(other, "summary")


def test_a_sample_version_has_a_warning() -> None:
    assert "Trained on the built-in sample." in words(training_report(result_of(sample=True)))
    assert "Trained on the built-in sample." not in words(training_report(result_of()))


def test_candidates_have_standard_errors_and_the_chosen_one_is_marked(page: str) -> None:
    text = section(page, "candidates")
    for each in (GOOD, WORSE):
        for figure in ("auc", "log_loss", "recall", "average_precision", "ks", "gini"):
            assert f"{each.mean(figure):.4f} ± {each.error(figure):.4f}" in text
        assert f"{each.mean('brier'):.5f} ± {each.error('brier'):.5f}" in text
    assert "additive chosen this report" in text
    assert text.count("chosen") == 1


def test_the_effect_of_resampling_is_described(page: str) -> None:
    text = section(page, "candidates")
    gain = SMOTE.mean("auc") - GOOD.mean("auc")
    assert "Neither class weights nor SMOTE made any candidate clearly better." in text
    assert f"smote with additive (−{abs(gain):.4f})" in text
    assert f"{SMOTE.mean('auc'):.4f} ±" in text
    assert "3 trials" in section(page, "tried")
    assert section(page, "tried").count("depth=1") == 3


def test_one_resampling_alone_is_not_compared() -> None:
    result = SearchResult((GOOD, WORSE), (GOOD, WORSE), GOOD, "it is the best")
    text = training_report(replace(result_of(), search=result))
    assert "nothing to compare" in section(text, "candidates")


@pytest.mark.parametrize(
    ("riskier", "is_reported"), [("higher", True), ("lower", False), (None, False)]
)
def test_odds_against_a_fields_direction_are_reported(
    riskier: Literal["higher", "lower"] | None, is_reported: bool
) -> None:
    """The card's odds fall by e^1.4, from 0.7 to −0.7, as pay rises."""
    fields = tuple(
        replace_field(field, riskier=riskier) if field.name == "pay" else field
        for field in DEFINITION.fields
    )
    definition = replace_field(DEFINITION, fields=fields)
    text = section(training_report(result_of(definition=definition)), "shapes")
    assert ("goes against that by a factor of up to 4.06 in the odds" in text) == is_reported


def test_calibration_is_shown_before_and_after() -> None:
    # Class weights have this effect: the probabilities are far too high.
    uncalibrated = make_trial("additive", SIGNAL, shift=0.0)
    text = section(training_report(result_of(uncalibrated)), "calibration")
    p = 1 / (1 + np.exp(-uncalibrated.margins))
    q = 1 / (1 + np.exp(-cross_fitted(uncalibrated.margins, LATE, FOLD)))
    rows = re.findall(
        r"(none|smote)(?: this version)? 2,000 (before|after) (.+?) % (\S+) % (\S+)", text
    )
    assert [row[:2] for row in rows] == [
        *(("none", "before"), ("none", "after")),
        *(("smote", "before"), ("smote", "after")),
    ]
    for row, probabilities in ((rows[0], p), (rows[1], q)):
        assert float(row[3]) == pytest.approx(100 * probabilities.mean(), rel=0.01)
        assert float(row[4]) == pytest.approx(np.mean((probabilities - LATE) ** 2), abs=1e-5)


def test_thresholds_have_the_figures_of_the_out_of_fold_margins(page: str) -> None:
    margins, policy = FULL.margins, FULL.policy
    text = section(page, "policy").split(" Thresholds ")[1]
    flagged = policy.late_many(margins)
    n_flagged, n_late = flagged.sum(), LATE[flagged].sum()
    cost = 1000 * ((n_flagged - n_late) + 20 * (LATE.sum() - n_late)) / LOANS
    row = re.search(r"4\.76 % chosen (\S+) % (\S+) % (\S+) % (\S+) (\S+)", text)
    assert row is not None
    expected = [100 * n_flagged / LOANS, 100 * n_late / LATE.sum(), 100 * n_late / n_flagged]
    lift = n_late / n_flagged / LATE.mean()
    assert [float(each) for each in row.groups()] == pytest.approx(
        [*expected, lift, cost], rel=0.01
    )
    assert 14 <= text.split("Bands")[0].count(" % ") / 4 <= 20
    assert "Flagging no loan would cost 1,000, flagging all loans 950" in text


def test_each_loan_is_in_a_band(page: str) -> None:
    rows = re.findall(r"<tr><td>(Low|Medium|High|Very high)</td><td>[^<]*</td>"
                      r'<td class="n">([\d,]+)</td>', page)  # fmt: skip
    counts = [int(count.replace(",", "")) for _, count in rows]
    assert len(counts) == 8  # of the training table and of the later book
    assert sum(counts[:4]) == LOANS
    assert sum(counts[4:]) == LOANS // 2


def test_an_empty_band_has_no_rate() -> None:
    study = result_of()
    high = Policy.at(0.9, "cost", 1)
    text = training_report(replace(study, policy=high))
    assert re.search(r"Very high 95\.00 % and above 0 – – – –", section(text, "policy"))


def test_each_fold_has_its_figures(page: str) -> None:
    text = section(page, "stability")
    for each in GOOD.by_fold:
        assert f"500 25 {each['auc']:.4f} {each['ks']:.4f}" in text


def test_a_later_book_has_figures_and_a_note_if_its_late_rate_differs(page: str) -> None:
    text = section(page, "later")
    figures = performance_figures(LATER.late, LATER.margins, FULL.policy.threshold_margin)
    assert f"{figures['auc']:.4f}" in text
    assert "too high for them, by more than chance explains" in text
    assert 'id="later"' not in training_report(result_of())
    assert "No later book was given" in words(training_report(result_of()))


def test_a_later_book_of_one_outcome_has_no_ranking_figures() -> None:
    later = LaterBookScores("next.csv", LATER.margins, np.zeros(len(LATER.late)))
    text = training_report(replace(result_of(), later=later))
    assert "All of these loans have the same outcome" in section(text, "later")


def test_a_scorecard_s_shapes_are_exact_and_relative_to_the_average(page: str) -> None:
    text = section(page, "shapes")
    assert "below 1,000 0.700000 × 2.014" in text
    assert "2,500 and above −0.700000 × 0.497" in text
    assert "below 13.06 % −0.200000" in text
    assert "not given 0.100000" in text
    assert "any other 0.000000 × 1.000" in text
    for name in ("pay", "rate", "colour"):
        assert f'aria-label="Odds by {name}"' in page
    assert "The model does not use this field" in text
    assert page.count("<details>") == 4  # the three fields that are used, and the trials


def test_the_scorecard_as_points(page: str) -> None:
    text = section(page, "points")
    # 487.12 − 28.85 · ln(0.05 / 0.95)
    assert "Start at 572 ," in text
    assert "600 points are 50 loans on time for each late one" in text
    assert "below 1,000 −20" in text
    assert "2,500 and above +20" in text
    assert "blue −17" in text
    assert "600 1.96 %" in text
    assert "scorecard.json" in text


def test_a_report_without_a_scorecard_explains_the_reasons() -> None:
    text = training_report(result_of(WORSE, estimator=ONNX))
    assert "permutation sampling" in section(text, "shapes")
    assert 'id="points"' not in text


def test_fairness_is_shown_for_each_named_column(page: str) -> None:
    text = section(page, "fairness")
    assert "By town" in text
    assert "not given" in text
    assert "Being flagged is the unfavourable outcome" in text
    without = section(training_report(result_of()), "fairness")
    assert "No column was named" in without


def test_the_document_marks_what_the_owner_has_to_fill_in(page: str) -> None:
    text = section(page, "document")
    assert text.count("To be filled in by the owner") >= 8
    for part in ("intended use", "Assumptions", "Limits", "Independent validation", "Monitoring",
                 "Ownership", "SR 11-7", "SR 26-2"):  # fmt: skip
        assert part in text


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    definition = parse_definition(
        TEXT.replace('"colour"', f"'''{evil}'''").replace('"Colour"', "'<b>x</b>'"), "evil.toml"
    )
    colour = LevelTable(evil, ("<i>red</i>", "blue"), unit(-0.1, 0.6), 0.0, 0.0)
    study = replace(
        result_of(
            definition=definition,
            estimator=Scorecard(0.0, (*SCORECARD.tables[:2], colour, SCORECARD.tables[3])),
            source="<img src=x>.csv",
        ),
        later=LaterBookScores("<u>next", LATER.margins, LATER.late),
        groups=(Group("<u>", tuple("<u>" if place % 2 else "B" for place in range(LOANS))),),
    )
    page = ReportPage(training_report(study))
    assert not page.open
    assert not page.tags & {"script", "b", "img", "u"}
    assert "<i>red</i>" in page.text


@pytest.mark.parametrize("aim", ["balanced", "cost", "capacity", "recall", "f2"])
def test_the_aims_are_beside_each_other_in_report_and_card(aim: str) -> None:
    plain = result_of()
    value = 7.0 if aim == "cost" else 0.3 if aim in ("capacity", "recall") else 0.0
    policy = Policy.by_aim(aim, value, plain.trade_off)
    at = GOOD.at_threshold(policy.threshold_margin, LATE)
    study = replace(plain, policy=policy, metrics={name: at.mean(name) for name in FIGURES})
    made = documents(study)
    html = made["report.html"]
    table = words(html[html.index('<h3 id="aims">') : html.index("<h3>Thresholds")])
    spelled = spell_aim(aim, value)
    usual = [f"{name}={number:g}" if number else name for name, number in USUAL_AIMS.items()]
    names = [spelled if name.split("=")[0] == aim else name for name in usual]
    places = [table.index(f" {name} ") for name in names]
    assert places == sorted(places)
    assert table.count(" chosen ") == 1
    flagged = policy.late_many(GOOD.calibrated)
    n_late = LATE[flagged].sum()
    ratio = value if aim == "cost" else 20
    cost = 1000 * ((flagged & (LATE == 0)).mean() + ratio * (~flagged & (LATE == 1)).mean())
    figures = (policy.threshold, flagged.mean(), n_late / LATE.sum(), n_late / flagged.sum())
    shares = [percent(figure) for figure in figures]
    after = table.split(f"{spelled} chosen {' '.join(shares)} ")[1]
    assert float(after.split()[0]) == pytest.approx(cost, abs=0.51)
    assert f"a missed late loan {ratio:g}." in table
    is_default = "the default ratio: this policy has another aim" in section(html, "policy")
    assert is_default == (aim != "cost")
    # The folds have equally many late loans and equally many others, so their means agree.
    assert f"| {spelled} (chosen) | {' | '.join(shares)} | " in made["card.md"]
    for name in names:
        assert f"\n| {name} " in made["card.md"]


def test_the_figures_of_the_other_aims_are_those_of_their_thresholds() -> None:
    study = result_of()
    rows = compare_aims(study.policy, study.trade_off[0], study.trade_off)
    assert [row.aim for row in rows] == ["balanced", "cost=20", "capacity=0.1", "recall=0.8", "f2"]
    for row in rows:
        if not row.is_chosen:
            exact = GOOD.calibrated >= margin(row.threshold)
            assert row.result.flagged <= exact.mean() <= row.result.flagged + 0.0051
            late_flagged = LATE[exact].sum() / LATE.sum()
            assert row.result.recall <= late_flagged <= row.result.recall + 0.03
    assert rows[0].threshold == pytest.approx(LATE.mean(), abs=1e-9)
    assert rows[1].result == study.trade_off[0]


def test_without_a_trade_off_table_there_is_no_table_of_aims() -> None:
    study = result_of()
    made = documents(study)
    manifest = report_manifest(study.trained_on, study.policy, metrics=study.metrics)
    report = report_data.training_report(study)
    without = new_version_documents(study.definition, report)(manifest)
    for name in ("report.html", "card.md"):
        assert "Aims beside each other" in made[name]
        assert "Aims beside each other" not in without[name]


def test_edges_that_are_too_large_for_an_axis_are_only_in_the_table() -> None:
    wide = NumberTable("pay", (-1e308, 1e308), unit(0.7, 0.0, -0.7), 0.0)
    text = training_report(result_of(estimator=Scorecard(0.0, (wide, *SCORECARD.tables[1:]))))
    assert 'aria-label="Odds by pay"' not in text
    assert "3 exact lines" in words(text)
