"""Reports of versions made of another: what they say is right, and they stand alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from peerloan.loan import parse_definition
from peerloan.model import Policy
from peerloan.registry import TrainedOn
from peerloan.reports.recalibration_report import (
    Recalibrated,
    recalibration_report,
    under_another_policy,
)
from peerloan.reports.sections import Judgement, at_policy
from peerloan.stats.calibration import reliability
from peerloan.stats.discrimination import auc
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


def report(book: str = "new<er>.csv", trained: str = "ab" * 32, sample: bool = False) -> str:
    area = auc(RAW, LATE.astype(np.int64))
    assert area is not None
    return recalibration_report(
        Recalibrated(
            version="additive-1",
            candidate="additive",
            definition=parse_definition(TEXT, "cars.toml"),
            trained_on=TrainedOn("cars.csv", trained, 9_000, 300, sample),
            book=TrainedOn(book, "cd" * 32, LOANS, int(LATE.sum()), False),
            scale=SCALE,
            before=Judgement("before", RAW, LATE),
            after=Judgement("after", AFTER, LATE),
            auc=area,
            policy=Policy.by_cost(),
            trade_off=trade_off(AFTER, LATE),
        )
    )


def words(text: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL).split())


def test_a_recalibration_report_tells_before_from_after() -> None:
    page = report()
    said = words(page)
    before, after = reliability(RAW, LATE), reliability(AFTER, LATE)
    assert f"Brier score {before.brier:.5f} {after.brier:.5f}" in said
    assert f"Slope {before.slope:.2f} {after.slope:.2f}" in said
    assert "Expected after 4.00 %" in said
    assert "Late rate of the book 4.00 %" in said
    assert f"multiplies its log-odds by {SCALE.slope:.4f} and adds −{-SCALE.intercept:.4f}." in said
    at = at_policy(Policy.by_cost(), Judgement("after", AFTER, LATE))
    assert f"{100 * at.recall:.1f} % of the late ones are among them" in said
    assert "from additive-1 with the outcomes of new&lt;er&gt;.csv" in said
    assert "that the version was trained on" not in said
    assert not re.search(r"(src|href)=[\"\'](?!#)", page)


def test_it_warns_of_the_training_table_itself_and_of_the_sample() -> None:
    assert "These are the loans that the version was trained on" in words(report(trained="cd" * 32))
    assert "no decision about a person may rest on" in words(report(sample=True))


@pytest.mark.parametrize("times", [1, 2])
def test_a_changed_policy_stands_below_the_heading(times: int) -> None:
    page = report()
    for time in range(times):
        page = under_another_policy(page, f"additive<{time}>", Policy.by_cost(5 + time))
    head = words(page.split("<nav", 1)[0])
    # Once, with the policy of now, and of the version that it was written for.
    assert head.count("was changed after this report was written for additive&lt;0&gt;.") == 1
    assert f"Says yes (late) from a probability of {1 / (5 + times):.4f} on" in head
    assert head.count("Says yes") == 1


def test_a_report_of_another_program_stays_as_it_is() -> None:
    assert under_another_policy("<p>mine</p>", "v", Policy.by_cost()) == "<p>mine</p>"
