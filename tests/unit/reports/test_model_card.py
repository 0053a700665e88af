"""The model card and the scorecard as points; neither needs a training library."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from helpers.drafts import report_manifest
from peerloan.loan import Definition, Loans, TextColumn, parse_definition
from peerloan.model import LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.arithmetic import margin, to_unit
from peerloan.registry import TrainedOn
from peerloan.reports import bundle_documents
from peerloan.reports import model_card as card
from peerloan.reports.model_card import model_card, policy_in_words
from peerloan.reports.score_points import as_points, exact_lines, score

HEAD = """
model = "cars"
[label]
column = "outcome"
late = "bad"
on_time = "good"
[roles]
horizon = [1, 90]
"""
FIELDS = """
[[field]]
name = "age"
kind = "number"
label = "Age"
unit = "years"
[[field]]
name = "doors"
kind = "whole"
label = "Doors"
min = 0
missing = true
[[field]]
name = "share"
kind = "number"
label = "Share"
percent = true
[[field]]
name = "size"
kind = "ordered"
label = "Size"
levels = ["small", "middle", "large", "huge"]
[[field]]
name = "colour"
kind = "category"
label = "Colour"
"""
DEFINITION = parse_definition(HEAD + FIELDS, "cars.toml")
TRAINED_ON = TrainedOn("cars.csv", "f" * 64, 2_000, 100, False)
POLICY = Policy.by_cost()
METRICS = {"auc": 0.71234, "brier": 0.0213, "later_auc": 0.69, "own_figure": 3.0}


def unit(*values: float) -> tuple[float, ...]:
    return tuple(float(to_unit(value)) for value in values)


SCORECARD = Scorecard(
    margin(0.02),
    (
        NumberTable("age", (20.0, 35.5), unit(0.5, 0.0, -0.5), 0.0),
        NumberTable("doors", (0.5, 1.5, 3.5), unit(0.3, 0.1, -0.1, -0.4), float(to_unit(0.2))),
        NumberTable("share", (0.1306,), unit(-0.2, 0.2), 0.0),
        LevelTable("size", ("small", "large"), unit(-0.3, 0.3), 0.0, 0.0),
        LevelTable("colour", ("red", "blue"), unit(-0.1, 0.6), 0.0, 0.0),
    ),
)


def card_text(
    definition: Definition = DEFINITION,
    trained_on: TrainedOn = TRAINED_ON,
    policy: Policy = POLICY,
) -> str:
    manifest = report_manifest(
        trained_on,
        policy,
        model=definition.model,
        metrics=METRICS,
        intervals={"auc": (0.7, 0.7246)},
    )
    return model_card(manifest, definition)


def test_the_card_has_purpose_training_table_and_figures() -> None:
    text = card_text()
    assert text.startswith(
        "# cars: additive\n\nVersion `additive-1`, made 2026-01-01T00:00:00+00:00.\n"
    )
    assert "between day 1 and day 90 after the decision" in text
    assert "2,000 loans, of which 100 are late" in text
    assert f"`{'f' * 64}`" in text
    assert "| AUC | 0.7123 | 0.7 to 0.7246 |" in text
    assert "| AUC, later book | 0.69 |  |" in text
    assert "| own_figure | 3 |  |" in text
    assert "| high | 4.76 % to below 9.52 % |" in text
    assert "| colour | Colour | category |" in text
    assert "built-in sample" not in text
    assert text.count("to be filled in by the owner") == 4
    assert card_text() == text


def test_the_card_of_a_sample_version_starts_with_a_warning() -> None:
    text = card_text(trained_on=TrainedOn("built-in sample", "0" * 64, 2_000, 100, True))
    assert text.index("Trained on the built-in sample") < text.index("Predicts")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy.by_cost(20), "probability of 0.0476 on: where a missed late loan costs as much as "
         "20 false alarms"),
        (Policy.at(0.1, "capacity", 0.075), "flags the riskiest 7.5 % of the loans"),
        (Policy.at(0.1, "recall", 0.6), "finds at least 60 % of the late loans"),
        (Policy.at(0.1, "f2", 0), "largest F2"),
        (Policy.at(0.1, "other", 3), "(aim: other 3)"),
    ],
)  # fmt: skip
def test_a_policy_is_described_in_words(policy: Policy, words: str) -> None:
    assert words in policy_in_words(policy)
    assert words in card_text(policy=policy).replace("\n", " ")


def test_another_policy_changes_only_the_policy_section() -> None:
    before, after = (card_text(policy=Policy.by_cost(ratio)).splitlines() for ratio in (20, 10))
    changed = [place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert before[changed[0] - 1] == "## Policy"
    assert len(changed) == 5  # the sentence and four bands


def test_names_are_escaped_for_markdown() -> None:
    evil = "<script>|`x`*b*[a](b)"
    text = HEAD + f"[[field]]\nname = '{evil}'\nkind = 'category'\nlabel = '<b>'"
    found = card_text(
        parse_definition(text.replace('"outcome"', "'a`b'"), "evil.toml"),
        TrainedOn(evil, "0" * 64, 10, 1, False),
    )
    assert "`` a`b ``" in found or "``a`b``" in found
    assert not re.search(r"(?<!\\)<(script|b)", found)
    line = next(line for line in found.splitlines() if "category" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 5


@pytest.mark.parametrize("module", [card, bundle_documents])
def test_reports_need_no_training_library(module: ModuleType) -> None:
    """A policy can be changed on a machine where none of them is installed."""
    code = """
import importlib.util, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sklearn", "xgboost", "pyarrow", "scipy", "matplotlib",
                                      "optbinning", "imblearn", "onnx", "pandas"):
            raise ModuleNotFoundError(name)
        if name.startswith(("peerloan.training", "peerloan.book", "peerloan.web")):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
spec = importlib.util.spec_from_file_location("card", sys.argv[1])
card = importlib.util.module_from_spec(spec)
sys.modules["card"] = card
spec.loader.exec_module(card)
"""
    command = [sys.executable, "-c", code, str(Path(str(module.__file__)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_score_is_600_at_odds_of_50_and_20_points_double_the_odds() -> None:
    assert score(-math.log(50)) == pytest.approx(600)
    assert score(-math.log(100)) == pytest.approx(620)
    assert score(-math.log(25)) == pytest.approx(580)


def test_each_line_names_its_values() -> None:
    lines = [
        [line.values for line in exact_lines(field, table)]
        for field, table in zip(DEFINITION.fields, SCORECARD.tables, strict=True)
    ]
    assert lines == [
        ["below 20", "20 to below 35.5", "35.5 and above"],
        ["0", "1", "2 to 3", "4 and more", "not given"],
        ["below 13.06 %", "13.06 % and above"],
        ["small", "middle", "large", "huge"],
        ["blue", "red", "any other"],
    ]


def test_points_are_whole_and_higher_is_safer() -> None:
    points = as_points(SCORECARD, DEFINITION, Policy.by_cost())
    assert points.start == round(score(SCORECARD.base))
    # 0.5 more log-odds are 0.5 · 20 / ln 2 = 14.4 points less.
    assert [line.points for line in points.tables[0].lines] == [-14, 0, 14]
    assert points.tables[0].lines[0].odds == pytest.approx(math.exp(0.5))
    assert points.threshold == pytest.approx(score(margin(1 / 21)), abs=1e-6)
    assert list(points.bands) == sorted(points.bands, reverse=True)
    for score_, p in points.scale:
        assert score_ == pytest.approx(
            600 - 20 / math.log(2) * math.log(50 * p / (1 - p)), abs=1e-3
        )


def test_neighbours_with_similar_points_share_a_line() -> None:
    table = LevelTable("size", ("small", "large", "huge"), unit(0.3, -0.2, -0.201), 0.3, 0.0)
    card = Scorecard(0.0, (*SCORECARD.tables[:3], table, SCORECARD.tables[4]))
    size = as_points(card, DEFINITION, Policy.by_cost()).tables[3]
    assert [line.values for line in size.lines] == ["small – middle", "large – huge"]
    assert size.steps == 4


def test_a_long_table_has_few_lines_with_a_small_deviation() -> None:
    rng = np.random.default_rng(1)
    edges = tuple(np.arange(1.0, 200).tolist())
    long = NumberTable("age", edges, unit(*np.cumsum(rng.normal(0, 0.05, 200))), 0.0)
    many = tuple(f"colour {place}" for place in range(40))
    colours = LevelTable("colour", many, unit(*rng.normal(0, 0.5, 40)), 0.0, 0.0)
    card = Scorecard(SCORECARD.base, (long, *SCORECARD.tables[1:4], colours))
    points = as_points(card, DEFINITION, Policy.by_cost())
    assert len(points.tables[0].lines) <= 10
    assert len(points.tables[4].lines) <= 11  # and any other
    assert sum(line.steps for line in points.tables[0].lines) == points.tables[0].steps == 200
    assert any(re.search(r"and \d+ more$", line.values) for line in points.tables[4].lines)

    # Summed by hand, no loan's score deviates more from its exact score than `points.off`.
    size = 500
    loans = Loans(
        DEFINITION,
        {
            "age": rng.uniform(0, 201, size),
            "doors": np.where(rng.random(size) < 0.2, np.nan, rng.integers(0, 6, size)),
            "share": rng.uniform(0, 0.3, size),
            "size": TextColumn(rng.integers(0, 4, size), DEFINITION["size"].levels),
            "colour": TextColumn(rng.integers(0, 41, size), (*many, "another")),
        },
        size,
    )
    margins, parts = card.score_many(loans)
    added = np.full(size, float(points.start))
    for place, table in enumerate(points.tables):
        for row in range(size):
            matching = [line for line in table.lines if line.low <= parts[row, place] <= line.high]
            added[row] += min(
                (line.points for line in matching),
                key=lambda points_: abs(points_ + parts[row, place] * 20 / math.log(2)),
            )
    exact = np.array([score(value) for value in margins])
    assert np.abs(added - exact).max() <= points.off
    assert points.off < 40


@pytest.mark.parametrize("fields", [12, 20, 60])
def test_more_fields_leave_fewer_lines_for_each(fields: int) -> None:
    text = "\n".join(
        f"[[field]]\nname='f{place}'\nkind='number'\nlabel='F'" for place in range(fields)
    )
    edges, points = tuple(map(float, range(99))), unit(*np.linspace(-2, 2, 100))
    tables = tuple(NumberTable(f"f{place}", edges, points, 0.0) for place in range(fields))
    definition = parse_definition(HEAD + text, "wide.toml")
    found = as_points(Scorecard(0.0, tables), definition, Policy.by_cost())
    lines = len(found.tables[0].lines)
    assert lines == {12: 10, 20: 9, 60: 3}[fields]


def test_a_number_without_steps_and_a_category_without_levels_have_one_line() -> None:
    tables = (
        NumberTable("age", (), (0.0,), 0.0),
        *SCORECARD.tables[1:4],
        LevelTable("colour", (), (), 0.0, 0.0),
    )
    found = as_points(Scorecard(0.0, tables), DEFINITION, Policy.by_cost())
    assert [line.values for line in found.tables[0].lines] == ["any value"]
    assert [line.values for line in found.tables[4].lines] == ["any other"]


def test_edges_that_differ_in_a_late_digit_are_shown_with_it() -> None:
    table = NumberTable("age", (1.0, 1.00000001), unit(0.0, 1.0, -1.0), 0.0)
    found = [line.values for line in exact_lines(DEFINITION["age"], table)]
    assert found == ["below 1", "1 to below 1.00000001", "1.00000001 and above"]
