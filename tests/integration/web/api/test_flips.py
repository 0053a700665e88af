"""Flips through the API: a what-if says what would change its decision, and keeps to it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from helpers.api import JSON, loans
from helpers.apps import create_app
from helpers.stores import champion_store
from peerloan.loan import default_definition
from peerloan.model import Policy
from peerloan.settings import Settings

FLIPS = "/v1/predictions?what_if=true&flips=true"
WHAT_IF = "/v1/predictions?what_if=true"
CANDIDATES = ("additive", "basic")


def ask(client: FlaskClient, path: str, body: Any) -> dict[str, Any]:
    """The answer to a request that must be accepted."""
    answer = client.post(path, data=json.dumps(body), content_type=JSON)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = json.loads(answer.data)
    return parsed


def near_the_threshold(client: FlaskClient) -> list[dict[str, Any]]:
    """Loans with all values, whose decisions change by little."""
    drawn = [loan for loan in loans(300, seed=3) if None not in loan.values()]
    answers = ask(client, f"{WHAT_IF}&reasons=none", drawn)["predictions"]
    distances = [abs(each["probability"] - each["threshold"]) for each in answers]
    order = sorted(range(len(drawn)), key=distances.__getitem__)
    return [drawn[i] for i in order[:12]]


def refusal(client: FlaskClient, query: str, body: Any) -> dict[str, Any]:
    """The only error of a request with wrong parameters."""
    answer = client.post(f"/v1/predictions{query}", data=json.dumps(body), content_type=JSON)
    assert answer.status_code == 400, answer.text
    problem = json.loads(answer.data)
    (error,) = problem["errors"]
    assert problem["detail"] == (
        f"{error['field']}: expected {error['expected']}, given {error['given']}"
    )
    assert error["loan"] is None
    parsed: dict[str, Any] = error
    return parsed


@pytest.fixture(scope="module", params=CANDIDATES)
def client(
    request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> FlaskClient:
    """An application whose threshold is the median of some loans, so that many decisions flip."""
    store = champion_store(trained, tmp_path_factory.mktemp(request.param), request.param)
    version = str(store.state().champion)
    bundle = store.load(version)
    drawn = bundle.profile.draw(bundle.definition, 200, seed=5)
    middle = statistics.median(bundle.decide_many(drawn, explain=False).probabilities.tolist())
    store.promote(store.publish_with_policy(version, Policy.at(middle, "cost", 20.0)))
    return create_app(Settings(store.root), on_loopback=True).test_client()


def test_each_flip_is_confirmed_by_a_what_if(
    client: FlaskClient, request: pytest.FixtureRequest
) -> None:
    changeable = {field.name: field.changeable for field in default_definition().fields}
    search = {"found_by": "search"} if "basic" in request.node.name else {}
    described = json.loads(client.get("/openapi.json").data)
    schema = described["components"]["schemas"]["Prediction"]
    kinds = set()
    for loan in near_the_threshold(client):
        answer = ask(client, FLIPS, loan)
        jsonschema.Draft202012Validator(schema).validate(answer)
        flips = answer.pop("flips")
        assert answer == ask(client, WHAT_IF, loan)
        for flip in flips:
            name = flip.pop("field")
            (kind,) = {"value", "level"} & set(flip)
            other = flip.pop(kind)
            confirmed = ask(client, WHAT_IF, loan | {name: other})
            direction = {}
            if kind == "value" and other is not None:
                direction = {"direction": "up" if other > loan[name] else "down"}
            assert flip == direction | search | {
                "probability": confirmed["probability"],
                "late": not answer["late"],
                "changeable": changeable[name],
            }
            assert confirmed["late"] == flip["late"]
            kinds.add((kind, flip.get("direction"), other is None))
        order = [flip["changeable"] for flip in flips]
        assert order == sorted(order, reverse=True)
    assert {
        ("value", "up", False),
        ("value", "down", False),
        ("value", None, True),
        ("level", None, False),
    } <= kinds


def test_without_flips_there_are_none(client: FlaskClient, loan: dict[str, Any]) -> None:
    assert "flips" not in ask(client, WHAT_IF, loan)
    assert "flips" not in ask(client, f"{WHAT_IF}&flips=false", loan)
    assert "flips" not in ask(client, "/v1/predictions?flips=false", loan)
    assert "flips" in ask(client, f"{FLIPS}&reasons=none&contributions=all", loan)


@pytest.mark.parametrize("query", ["?flips=true", "?flips=true&what_if=false"])
def test_flips_of_a_decision_are_refused(
    client: FlaskClient, loan: dict[str, Any], query: str
) -> None:
    for body in (loan, [loan]):
        assert refusal(client, query, body) == {
            "loan": None,
            "field": "?flips",
            "expected": "what_if=true beside it",
            "given": "flips=true without it",
        }


def test_a_wrong_parameter_is_named_alone(client: FlaskClient, loan: dict[str, Any]) -> None:
    assert refusal(client, "?flips=1&what_if=true", loan)["expected"] == "true or false"
    assert refusal(client, "?flips=true&what_if=1", loan)["field"] == "?what_if"


def test_flips_of_several_loans_are_refused(client: FlaskClient, loan: dict[str, Any]) -> None:
    columns = {name: [value, value] for name, value in loan.items()}
    for body, given in (([loan], "1 loan"), ([loan] * 3, "3 loans"), (columns, "2 loans")):
        error = refusal(client, "?what_if=true&flips=true", body)
        assert error == {
            "loan": None,
            "field": "?flips",
            "expected": "one loan, an object of its values",
            "given": f"a list of {given}",
        }


def test_a_wrong_loan_is_refused_as_without_flips(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    for path in (FLIPS, WHAT_IF):
        answer = client.post(path, data=json.dumps(loan | {"dti": -1}), content_type=JSON)
        assert answer.status_code == 422
        assert json.loads(answer.data)["errors"][0]["field"] == "dti"
