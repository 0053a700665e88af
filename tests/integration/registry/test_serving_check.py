"""What can't be served is not chosen, and a champion that can't be served is no dead end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jsonschema
import msgspec
import pytest
from flask.testing import FlaskClient
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.apps import create_app
from helpers.drafts import hand_made
from helpers.stores import VersionOf
from peerloan.loan import Definition, Field, Label, Loans, Roles
from peerloan.loan.definition import RESERVED
from peerloan.loan.text import text_fault
from peerloan.model import LevelTable, NumberTable, Scorecard
from peerloan.registry import BundleError, Store
from peerloan.settings import Settings
from peerloan.web.auth.tokens import Tokens
from peerloan.web.services import services_of


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the library that reads requests refuse a field's name, as it does some."""
    structure = msgspec.defstruct

    def refusing(name: str, fields: Any, **options: Any) -> Any:
        if "dti" in options["rename"].values():
            raise ValueError("Renamed field names must not be 'dti'")
        return structure(name, fields, **options)

    return lambda: monkeypatch.setattr(msgspec, "defstruct", refusing)


def service(store: Store) -> FlaskClient:
    settings = Settings(store.root, store.root.parent / "tokens")
    return create_app(settings, on_loopback=True).test_client()


def test_what_can_not_be_served_is_not_chosen(
    store: Store, version_of: VersionOf, refuse: Callable[[], None]
) -> None:
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    store.promote(second)
    token = Tokens(store.root.parent / "tokens").new("anna", operator=True)
    client, before = service(store), store.state()
    refuse()
    why = f"{first}: can't be served: Renamed field names must not be 'dti'"
    for choose in (store.load_servable, store.promote, store.challenge):
        with pytest.raises(BundleError) as refused:
            choose(first)
        assert str(refused.value) == why
    with pytest.raises(BundleError, match="can't be served"):
        store.rollback()
    head = {"Authorization": f"Bearer {token}"}
    answer = client.post(f"/v1/models/{first}/promote", headers=head)
    assert answer.status_code == 409
    assert answer.json is not None
    assert answer.json["detail"] == why
    assert store.state() == before
    assert store.load(first), "its decisions can be replayed all the same"


def test_a_champion_that_can_not_be_served_is_replaced_without_a_restart(
    store: Store,
    version_of: VersionOf,
    refuse: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    store.promote(second)
    refuse()
    with caplog.at_level(logging.ERROR):
        client = service(store)
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json is not None
    assert "can't be served" in ready.json["refused"]
    assert "peerloan models rollback" in ready.json["remedy"]
    assert ready.json["remedy"] in caplog.text
    monkeypatch.undo()
    store.rollback()
    services_of(client.application).serving_models.refresh()
    ready = client.get("/readyz")
    assert ready.json is not None
    assert (ready.status_code, ready.json["model"]["version"]) == (200, first)
    assert "remedy" not in ready.json


NAMES = st.text(
    st.one_of(
        st.characters(codec="utf-8"), st.sampled_from("\"\\'<>&{}%$:.,/_ \u200f\u202e\u2028")
    ),
    min_size=1,
    max_size=12,
).filter(lambda name: text_fault(name) is None and name not in RESERVED)


# At most 100, because each example makes an application, whose threads end with the process.
@pytest.mark.longer
@settings(max_examples=min(settings().max_examples, 100))
@example(names=['a"', "b\\", "__class__", "self", "c: d", "loan"], levels=['"', "\\"])
@given(
    names=st.lists(NAMES, min_size=6, max_size=6, unique=True),
    levels=st.lists(NAMES, min_size=2, max_size=4, unique=True),
)
def test_what_a_definition_takes_can_be_served(names: list[str], levels: list[str]) -> None:
    number, text, label, loan_id, date, exposure = names
    definition = Definition(
        "toys",
        Label(label, "late", "on time"),
        (
            Field(number, "number", "Number", min=0.0, max=100.0, default=5.0),
            Field(text, "category", "Text", levels=tuple(levels), default=levels[0]),
        ),
        Roles(loan_id, date, exposure),
    )
    loans = [{number: 5, text: levels[0]}, {number: 7.5, text: levels[1]}]
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.promote(published(store, definition))
        client = service(store)
        document = client.get("/openapi.json").get_json()
        schema = {"$ref": "#/components/schemas/Loan", "components": document["components"]}
        for loan in loans:
            jsonschema.Draft202012Validator(schema).validate(loan)
        sent = [loan | {loan_id: f"L{i}"} for i, loan in enumerate(loans)]
        answer = client.post("/v1/predictions?what_if=true", data=json.dumps(sent), **JSON)
        assert answer.status_code == 200, answer.text
        assert [each["loan_id"] for each in answer.get_json()["predictions"]] == ["L0", "L1"]
        columns = {name: [loan[name] for loan in loans] for name in (number, text)}
        again = client.post("/v1/predictions?what_if=true", data=json.dumps(columns), **JSON)
        assert [each["probability"] for each in again.get_json()["predictions"]] == [
            each["probability"] for each in answer.get_json()["predictions"]
        ]
        form = {f"field.{number}": "5", f"field.{text}": levels[0], "action": "form"}
        assert client.post("/", data=form).status_code == 200
        kept = client.get("/v1/predictions").get_json()
        assert kept["predictions"][0]["inputs"] == loans[0]


JSON: Any = {"content_type": "application/json"}


def published(store: Store, definition: Definition) -> str:
    """A version of a number and a category."""
    number, category = definition.fields
    rows = [(float(i), category.levels[i % 2]) for i in range(1, 9)]
    loans = Loans.of(definition, rows)
    tables = (
        NumberTable(number.name, (4.0,), (-0.25, 0.25), 0.0),
        LevelTable(category.name, category.levels[:1], (0.5,), 0.0, 0.0),
    )
    return store.publish(hand_made(definition, Scorecard(-2.0, tables), loans))
