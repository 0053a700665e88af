"""Make the small bundles of the current format, which every later release must replay.

Run `python tests/formats/make.py` by hand in the release that introduces a format, and never again
for that format. It replaces `format-N-scorecard` and `format-N-onnx`. Each contains the folder of
one version, and `expected.json` with its decisions on a few loans.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import shutil
from pathlib import Path

import msgspec
import numpy as np
from sklearn.ensemble import RandomForestClassifier

from peerloan.loan import Definition, Loans, Value, parse_definition
from peerloan.model import (
    EncodedColumn,
    Encoding,
    LevelTable,
    NumberTable,
    Policy,
    ReferenceProfile,
    Scorecard,
)
from peerloan.model.arithmetic import ARITHMETIC, to_unit
from peerloan.registry import Bundle, OnnxParts, TrainedOn, ValidationFigures, draft
from peerloan.registry.manifest import FORMAT
from peerloan.stats.arrays import Numbers
from peerloan.training.compile.onnx import forest_graph

HERE = Path(__file__).parent
CREATED = "2025-01-01T00:00:00+00:00"
LOANS = 400

DEFINITION = """
model = "furniture-credit"

[label]
column = "outcome"
late = "bad"
on_time = "good"

[roles]
id = "contract no."

[[field]]
name = "income.monthly"
kind = "number"
label = "Monthly income"
unit = "euros"
above = 0
riskier = "lower"

[[field]]
name = "open loans"
kind = "whole"
label = "Open loans"
min = 0
max = 50
missing = true

[[field]]
name = "Möbel"
kind = "category"
label = "What is bought"
levels = ["sofa & chairs", "kitchen (fitted)", "bed < 200 €"]
missing = true

[[field]]
name = "rating"
kind = "ordered"
label = "Rating"
levels = ["A+", "A", "B", "C"]
riskier = "higher"

[texts]
missing = "{label}: nothing was given."
"""


def training_loans(definition: Definition) -> Loans:
    """Loans from arithmetic, so that they don't depend on a random generator."""
    goods = ["sofa & chairs", "kitchen (fitted)", "bed < 200 €", "lamp", None]
    rows: list[tuple[Value, ...]] = [
        (
            float(800 + 37 * i % 5200),
            None if i % 11 == 0 else float(i * i % 7),
            goods[i * 7 % 13 % 5],
            ["A+", "A", "B", "C"][i * 5 % 17 % 4],
        )
        for i in range(LOANS)
    ]
    return Loans.of(definition, rows)


def scorecard() -> Scorecard:
    """A scorecard with uneven points, made by hand."""

    def point(value: float) -> float:
        return float(to_unit(value))

    return Scorecard(
        point(-2.9),
        (
            NumberTable(
                "income.monthly",
                (1000.0, 1500.5, 2200.000000000001, 4999.995),
                tuple(map(point, (0.91, 0.37, 1 / 7, -0.2, -0.633))),
                point(0.05),
            ),
            NumberTable(
                "open loans",
                (1.0, 3.0, 6.0),
                tuple(map(point, (-0.3, -0.011, 0.4, 0.77))),
                point(0.123),
            ),
            LevelTable(
                "Möbel",
                ("sofa & chairs", "kitchen (fitted)", "bed < 200 €"),
                tuple(map(point, (-0.08, 0.21, 1 / 3))),
                point(0.0625),
                point(-0.015),
            ),
            LevelTable(
                "rating",
                ("A+", "A", "B", "C"),
                tuple(map(point, (-0.9, -0.4, 0.25, 0.95))),
                0.0,
                0.0,
            ),
        ),
    )


def forest(loans: Loans, late: Numbers) -> OnnxParts:
    """Three small trees, as ONNX."""
    encoding = Encoding(
        (
            EncodedColumn("income.monthly", "value", fill=2000.0),
            EncodedColumn("open loans", "value", fill=2.0),
            EncodedColumn("open loans", "missing"),
            EncodedColumn("Möbel", "level", "kitchen (fitted)"),
            EncodedColumn("Möbel", "level", "bed < 200 €"),
            EncodedColumn("Möbel", "missing"),
            EncodedColumn("rating", "rank", fill=0.0),
        )
    )
    trees = RandomForestClassifier(n_estimators=3, max_depth=4, random_state=0, n_jobs=1)
    trees.fit(encoding.matrix(loans).astype(np.float32), late)
    return OnnxParts(forest_graph(trees, len(encoding.columns)), encoding)


def replayed(definition: Definition) -> list[dict[str, Value]]:
    """Loans at and around every edge, with every level, unseen levels and missing values."""
    incomes = [0.01, 999.9999999999999, 1000.0, 1500.5, 2200.000000000001, 2200.0, 4999.995, 1e12]
    counts = [0.0, 1.0, 2.0, 3.0, 6.0, 50.0, None]
    goods = ["sofa & chairs", "kitchen (fitted)", "bed < 200 €", "lamp", None, "Sofa & chairs"]
    ratings = ["A+", "A", "B", "C"]
    cycles = zip(
        *(
            itertools.islice(itertools.cycle(values), 24)
            for values in (incomes, counts, goods, ratings)
        ),
        strict=True,
    )
    return [dict(zip(definition.names, row, strict=True)) for row in cycles]


def make(kind: str) -> None:
    """Write the folder of a kind of model: "scorecard" or "onnx"."""
    definition = parse_definition(DEFINITION, "make.py")
    loans = training_loans(definition)
    card = scorecard()
    margins = card.margins(loans)
    late = (margins > np.quantile(margins, 0.8)).astype(np.float64)
    definition = msgspec.structs.replace(
        definition,
        fields=tuple(
            msgspec.structs.replace(field, seen=("sofa & chairs", "kitchen (fitted)", "lamp"))
            if field.kind == "category"
            else field
            for field in definition.fields
        ),
    )
    version = draft(
        candidate="small",
        definition=definition,
        estimator=card if kind == "scorecard" else forest(loans, late),
        policy=Policy.by_cost(8.0),
        profile=ReferenceProfile.of(loans, late, np.linspace(0.01, 0.4, LOANS)),
        trained_on=TrainedOn("made by arithmetic", "0" * 64, LOANS, int(late.sum()), sample=False),
        validation=ValidationFigures({"auc": 0.75, "brier": 0.1}, {}, (), ()),
        libraries={"python": platform.python_version()}
        | {
            name: importlib.metadata.version(name)
            for name in ("numpy", "onnx", "onnxruntime", "scikit-learn")
        },
        write_documents=lambda _manifest: {"card.md": "# furniture-credit: small\n"},
    )
    top = HERE / f"format-{FORMAT}-{kind}"
    shutil.rmtree(top, ignore_errors=True)
    folder = top / f"small-{kind}-{FORMAT}-{ARITHMETIC}"
    folder.mkdir(parents=True)
    files, _ = version.named(folder.name, CREATED)
    for name, content in files.items():
        (folder / name).write_bytes(content)

    bundle = Bundle.read(folder)
    expected = []
    for loan in replayed(definition):
        decision = bundle.decide(tuple(loan[name] for name in definition.names))
        expected.append(
            {
                "loan": loan,
                "margin": decision.margin,
                "probability": decision.probability,
                "late": decision.late,
                "band": decision.band,
                "contributions": decision.contributions,
                "reasons": [[r.feature, r.sentence] for r in decision.reasons or []],
            }
        )
    lines = b",\n".join(map(msgspec.json.encode, expected))
    (top / "expected.json").write_bytes(b"[\n" + lines + b"\n]\n")


if __name__ == "__main__":
    for kind in ("scorecard", "onnx"):
        make(kind)
