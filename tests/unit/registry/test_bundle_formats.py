"""Every format that a release ever wrote still opens, and says what it said then.

The bundles stand in `tests/formats`, made once by the release that brought the format (`make.py`).
Scorecards reproduce bit for bit; an ONNX version within 1e-6, with the same decision and reasons.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import FORMATS
from peerloan.loan import Checks, Loans
from peerloan.model import probabilities
from peerloan.model.arithmetic import ARITHMETIC
from peerloan.registry import Bundle
from peerloan.registry.manifest import FORMAT, read_document

STORED = sorted(path.name for path in FORMATS.glob("format-*"))


@pytest.fixture(params=STORED)
def stored(request: pytest.FixtureRequest) -> tuple[Bundle, list[dict[str, Any]]]:
    """A bundle of an earlier release, and what it said of some loans."""
    top = FORMATS / request.param
    (folder,) = (path for path in top.iterdir() if path.is_dir())
    expected: list[dict[str, Any]] = json.loads((top / "expected.json").read_bytes())
    return Bundle.read(folder), expected


Stored = tuple[Bundle, list[dict[str, Any]]]


def test_the_current_format_stands_here_in_both_kinds() -> None:
    kinds = set()
    for name in STORED:
        (folder,) = (path for path in (FORMATS / name).iterdir() if path.is_dir())
        manifest = Bundle.read(folder).manifest
        kinds.add((manifest.format, manifest.arithmetic, manifest.kind))
        assert name == f"format-{manifest.format}-{manifest.kind}"
    assert {(FORMAT, ARITHMETIC, "scorecard"), (FORMAT, ARITHMETIC, "onnx")} <= kinds


def test_the_stored_bundles_are_small() -> None:
    for name in STORED:
        files = [path for path in (FORMATS / name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 50_000


def test_a_file_that_a_release_does_not_know_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """So an older release serves versions with files of a later one, such as `report.json`."""
    (before,) = (path for path in (FORMATS / "format-1-scorecard").iterdir() if path.is_dir())
    folder = tmp_path / before.name
    shutil.copytree(before, folder)
    (folder / "unlisted.json").write_bytes(b"[]")
    (folder / "later.json").write_bytes(b"{}")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    digest = hashlib.sha256(b"{}").hexdigest()
    manifest["files"]["later.json"] = {"bytes": 2, "sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    opened, known = Bundle.read(folder), Bundle.read(before)
    assert opened.manifest.golden == known.manifest.golden
    assert read_document(folder, "later.json") == "{}"
    assert read_document(folder, "unlisted.json") is None


def test_every_decision_is_what_it_was(stored: Stored) -> None:
    bundle, expected = stored
    exact = bundle.manifest.kind == "scorecard"
    checks = Checks(bundle.definition)
    assert len(expected) >= 20
    assert {each["late"] for each in expected} == {True, False}
    for each in expected:
        checked = checks.loan(each["loan"])
        assert not checked.problems
        found = bundle.decide(checked.values)
        assert found.reasons is not None
        assert found.contributions is not None
        reasons = [[reason.feature, reason.sentence] for reason in found.reasons]
        assert (found.late, found.band, reasons) == (each["late"], each["band"], each["reasons"])
        if exact:
            assert found.probability == each["probability"]
            assert found.margin == each["margin"]
            assert list(found.contributions) == each["contributions"]
        else:
            assert math.isclose(found.probability, each["probability"], rel_tol=0, abs_tol=1e-6)
            # The margins' own scale: where the probability is near 0 or 1 they are far steeper.
            steep = 1e-6 / max(each["probability"] * (1 - each["probability"]), 1e-6)
            assert math.isclose(found.margin, each["margin"], rel_tol=0, abs_tol=2 * steep)
            assert found.contributions == pytest.approx(each["contributions"], abs=2 * steep)
        assert bundle.base + math.fsum(found.contributions) == found.margin


def test_a_whole_book_is_scored_as_it_was(stored: Stored) -> None:
    bundle, expected = stored
    checks = Checks(bundle.definition)
    loans = Loans.of(bundle.definition, [checks.loan(each["loan"]).values for each in expected])
    margins, _ = bundle.score_many(loans)
    due = [each["probability"] for each in expected]
    exact = bundle.manifest.kind == "scorecard"
    assert probabilities(margins).tolist() == (due if exact else pytest.approx(due, abs=1e-6))
    assert bundle.policy.late_many(margins).tolist() == [each["late"] for each in expected]
