"""A decision answers the question of its definition, and another lender reads its own."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from helpers.another_lender import Form
from helpers.apps import create_app
from helpers.paths import FORMATS
from helpers.stores import update_manifest
from peerloan.registry import Store
from peerloan.reports.model_card import model_card
from peerloan.settings import Settings

OURS = "Late in the next quarter?"
THEIRS = "Verpasst <eine> Rate?"
FURNITURE = next((FORMATS / "format-1-scorecard").glob("*/"))


def another_lender(root: Path, extras: dict[str, Any] | None) -> Store:
    """A store of another lender, whose champion has these newer facts."""
    folder = root / "versions" / FURNITURE.name
    shutil.copytree(FURNITURE, folder)
    if extras is not None:
        (folder / "extras.json").write_text(json.dumps(extras), "utf-8")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["files"]["extras.json"] = {}
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        update_manifest(folder)
    store = Store(root)
    store.promote(folder.name)
    return store


def pages(client: FlaskClient, sent: dict[str, str]) -> tuple[str, str, str, dict[str, Any]]:
    """The empty form, the decision, the API reference, and the operation that predicts."""
    decided = client.post("/", data=sent | {"action": "form"})
    assert decided.status_code == 200
    described = client.get("/openapi.json").get_data(as_text=True)
    form, reference = (client.get(path).get_data(as_text=True) for path in ("/", "/docs"))
    operation = json.loads(described)["paths"]["/v1/predictions"]["post"]
    return form, decided.get_data(as_text=True), reference + described, operation


def badge(decided: str) -> str:
    """The title of the decision with its answer."""
    title = re.search(r'<h2[^>]*id="decision-title">(.*?)</h2>', decided, re.DOTALL)
    assert title is not None
    return " ".join(Form(title[1]).text.split())


@pytest.mark.parametrize(
    ("extras", "question"),
    [(None, "Late?"), ({"unchangeable": ["rating"]}, "Late?"), ({"question": THEIRS}, THEIRS)],
)
def test_another_lender_reads_its_own_question(
    tmp_path: Path, extras: dict[str, Any] | None, question: str
) -> None:
    store = another_lender(tmp_path / "store", extras)
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    sent = {"field.income.monthly": "3000", "field.open loans": "1", "field.rating": "B"}
    form, decided, reference, operation = pages(client, sent)
    assert badge(decided) in (f"{question} Yes", f"{question} No")
    assert html.escape(question, quote=False) in form
    assert question in operation["description"]
    bundle = store.load(str(store.state().champion))
    card = model_card(bundle.manifest, bundle.definition)
    assert ("As a question:" in card) == (question == THEIRS)
    for text in (form, decided, reference, card):
        assert "next quarter" not in text.lower()


def test_peerloans_own_question_is_asked(champion: Store, loan: dict[str, Any]) -> None:
    client = create_app(Settings(champion.root), on_loopback=True).test_client()
    form, decided, _, operation = pages(
        client, {f"field.{name}": str(value) for name, value in loan.items()}
    )
    assert badge(decided) in (f"{OURS} Yes", f"{OURS} No")
    assert OURS in form
    assert OURS in operation["description"]
    version = str(champion.state().champion)
    assert f"As a question: {OURS}" in str(champion.document(version, "card.md"))
    definition = champion.definition(version)
    assert definition.question == OURS
    assert [field.name for field in definition.fields if not field.changeable] == [
        "int_rate",
        "grade",
        "emp_length",
        "delinq_2yrs",
    ]
    stored = msgspec.json.decode((champion.folder(version) / "loan.json").read_bytes())
    assert "question" not in stored
    assert all("changeable" not in field for field in stored["field"])
