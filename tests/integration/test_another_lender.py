"""Another lender's table goes from `define` to served decisions without a line of code."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.another_lender import LABEL, PURPOSES, ROWS, STATUS, Form, table
from helpers.commands import Run
from helpers.csv_files import write_csv
from helpers.service import Serve
from peerloan.loan import Definition, read_definition
from peerloan.registry import Store


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """The table as CSV."""
    path = tmp_path / "kredite.csv"
    write_csv(path, table())
    return path


def as_json(definition: Definition, row: dict[str, Any]) -> dict[str, Any]:
    """A row as a request."""
    return {name: None if row[name] == "" else row[name] for name in definition.names}


def test_another_lender_is_served_without_a_line_of_code(
    book: Path, tmp_path: Path, run: Run, serve: Serve
) -> None:
    rows = table()
    assert 0.2 < sum(row[LABEL] == "bad" for row in rows) / ROWS < 0.4

    defined = run("define", book, "--label", LABEL, "--late", "bad", "-o", "loan.toml")
    assert defined.returncode == 0, defined.stderr
    definition = read_definition(tmp_path / "loan.toml")
    assert set(definition.names) == set(rows[0]) - {LABEL}
    assert (definition.label.late, definition.label.on_time) == ("bad", "good")
    assert definition["Größe_m²"].missing
    assert definition["Duration (months)"].is_number
    assert set(definition["checking.status"].levels) == set(STATUS)

    trained = run(
        *("train", book, "--definition", "loan.toml", "--promote", "--quick"),
        *("--candidate", "additive", "--candidate", "basic"),
    )
    assert trained.returncode == 0, trained.stderr
    store = Store(tmp_path / "store")
    assert {store.manifest(version).candidate for version in store.versions()} == {
        "additive",
        "basic",
    }

    service = serve(store)
    predictions = f"{service.url}/v1/predictions"
    versions = [str(store.state().champion)]
    versions += [version for version in store.versions() if version not in versions]
    for version in versions:
        if store.state().champion != version:
            store.promote(version)
        service.wait_for(lambda version=version: service.serving() == version)  # type: ignore[misc]

        # The page: an input with its label for each field, and a decision on what is sent.
        form = Form(requests.get(service.url, timeout=10).text)
        assert list(form.ids) == [f"field.{name}" for name in definition.names]
        for field in definition.fields:
            assert field.label in form.labels[form.ids[f"field.{field.name}"]]
        assert set(STATUS) <= set(form.levels["field.checking.status"])
        assert set(PURPOSES) <= set(form.levels["field.Zweck"])
        row = rows[0]
        sent = {f"field.{name}": str(row[name]) for name in definition.names} | {"action": "form"}
        decided = requests.post(service.url, data=sent, timeout=10)
        assert decided.status_code == 200, decided.text
        shown = re.search(r'id="probability">([\d.]+) %', decided.text)
        assert shown is not None

        # The API says the same, of one loan and of all.
        one = requests.post(predictions, json=as_json(definition, row), timeout=10).json()
        assert one["warnings"] == []
        assert f"{100 * one['probability']:.2f}" == shown[1]
        said = Form(decided.text).text
        for reason in one["reasons"]:
            assert reason["sentence"] in said
        asked = [as_json(definition, each) for each in rows]
        answer = requests.post(f"{predictions}?reasons=none", json=asked, timeout=30).json()
        said_of = answer["predictions"]
        assert len(said_of) == ROWS
        wrong = requests.post(
            predictions, json=as_json(definition, row) | {"Duration_months": 1}, timeout=10
        )
        assert wrong.status_code == 422
        assert "Duration (months)" in wrong.text

        # So does the book; a few of its loans, because an ONNX version's reasons take a while.
        few, out = tmp_path / "few.csv", tmp_path / f"{version}.csv"
        write_csv(few, rows[:60])
        scored = run("score", few, "-o", out)
        assert scored.returncode == 0, scored.stderr
        with out.open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        assert [each["Zweck"] for each in found] == [each["Zweck"] for each in rows[:60]]
        assert [(float(each["probability"]), each["band"]) for each in found] == [
            (each["probability"], each["band"]) for each in said_of[:60]
        ]
        assert {each["model_version"] for each in found} == {version}

    # They tell the good from the bad.
    assert store.manifest(versions[0]).metrics["auc"] > 0.6
