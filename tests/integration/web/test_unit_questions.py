"""A value that is only plausible in another unit is questioned, by the API and on the page."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from helpers.apps import create_app
from helpers.ledgers import url_of
from peerloan.database import Database
from peerloan.registry import Store
from peerloan.settings import Settings

QUESTION = "40 is read as 4,000 %. Did you mean 0.40?"
JSON = "application/json"


@pytest.fixture
def client(champion: Store, database: Database) -> FlaskClient:
    chosen = Settings(champion.root, champion.root.parent / "tokens", url_of(database))
    return create_app(chosen, on_loopback=True).test_client()


@pytest.fixture
def percent(loan: dict[str, Any]) -> dict[str, Any]:
    """A loan with a percentage where a fraction is expected."""
    return loan | {"revol_util": 40}


def post(client: FlaskClient, body: object, query: str = "", **headers: str) -> dict[str, Any]:
    answer = client.post(
        f"/v1/predictions{query}", data=json.dumps(body), content_type=JSON, headers=headers
    )
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.get_json()
    return read


# The API


def test_a_suspected_unit_is_a_question_with_a_code(
    client: FlaskClient, percent: dict[str, Any]
) -> None:
    for query in ("", "?what_if=true", "?reasons=none"):
        body = post(client, percent, query)
        assert body["questions"] == [
            {
                "code": "unit-suspected",
                "field": "revol_util",
                "text": QUESTION,
                "suggestion": 0.4,
            }
        ]
        assert re.fullmatch(
            r"revol_util: 4,000 % is outside the range seen in training, 0 % to [0-9.]+ % "
            r"\(did you mean 0\.40\?\)",
            body["warnings"][0],
        )


def test_a_list_and_columns_have_the_same_questions(
    client: FlaskClient, loan: dict[str, Any], percent: dict[str, Any]
) -> None:
    batch = [loan, percent, loan | {"revol_util": 500}, loan | {"revol_util": 1.5}]
    columns = {name: [each[name] for each in batch] for name in loan}
    singly = [post(client, each).get("questions") for each in batch]
    for body in (batch, columns):
        predictions = post(client, body)["predictions"]
        assert [each.get("questions") for each in predictions] == singly
    assert [each and each[0]["code"] for each in singly] == [
        None,
        "unit-suspected",
        "out_of_range",
        None,
    ]


def test_a_repeated_request_gets_the_same_questions(
    client: FlaskClient, loan: dict[str, Any], percent: dict[str, Any]
) -> None:
    for number, body in enumerate((percent, [loan, percent])):
        key = {"Idempotency-Key": f"key-{number}"}
        assert post(client, body, **key) == post(client, body, **key)


def test_a_stored_decision_says_what_may_have_been_meant(
    client: FlaskClient, percent: dict[str, Any]
) -> None:
    body = post(client, percent)
    stored = client.get(f"/v1/predictions/{body['id']}").get_json()
    assert stored["warnings"] == body["warnings"]
    assert "(did you mean 0.40?)" in stored["warnings"][0]


def unseen_values(client: FlaskClient) -> float:
    """The counted values of the field that were not seen in training."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "peerloan_unseen_values_total" and sample.labels["field"] == "revol_util"
    )


def test_a_suspected_unit_is_counted_as_a_value_that_training_did_not_see(
    client: FlaskClient, percent: dict[str, Any]
) -> None:
    before = unseen_values(client)
    post(client, percent)
    assert unseen_values(client) == before + 1


# The page


def decide(client: FlaskClient, loan: dict[str, Any], **more: str) -> str:
    """The page that answers the form."""
    form = {f"field.{name}": str(value) for name, value in loan.items()}
    answer = client.post("/", data=form | (more or {"action": "form"}))
    assert answer.status_code == 200, answer.text
    return answer.text


def element(page: str, name: str) -> str:
    """The text of the element with this id."""
    found = re.search(rf'<(\w+)[^>]*\bid="{name}"[^>]*>(.*?)</\1>', page, re.DOTALL)
    assert found is not None, name
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[2])).split())


def test_the_page_asks_before_it_shows_the_decision(
    client: FlaskClient, percent: dict[str, Any]
) -> None:
    page = decide(client, percent)
    box = element(page, "questions")
    assert box.startswith(f"Revolving utilization: {QUESTION}")
    assert re.search(r'<div class="alert [^"]*" role="alert" id="questions">', page)
    assert page.index('id="questions"') < page.index('id="decision-title"')
    assert element(page, "late") == "check the value first"
    assert "text-bg-success" not in page
    assert "text-bg-danger" not in page
    assert not re.search(r'<rect class="(yes|no)"', page)
    assert element(page, "probability").endswith("%")
    assert element(page, "as-entered") in ("Yes", "No")
    assert "<title>Check first · PeerLoan Risk</title>" in " ".join(page.split())


def test_the_suggested_value_is_one_button_away(
    client: FlaskClient, loan: dict[str, Any], percent: dict[str, Any]
) -> None:
    page = decide(client, percent)
    button = re.search(
        r'<button [^>]*form="loan" name="([^"]+)"\s+value="([^"]+)">([^<]+)</button>', page
    )
    assert button is not None
    assert button[3] == "Decide with 0.4"
    decided = decide(client, percent, **{button[1]: button[2]})
    assert 'name="field.revol_util"\n                   value="0.4"' in decided
    assert 'id="questions"' not in decided
    expected = post(client, loan | {"revol_util": 0.4}, "?what_if=true")
    assert element(decided, "late") == ("Yes" if expected["late"] else "No")
    assert element(decided, "probability") == f"{100 * expected['probability']:.2f} %"


def test_several_questions_each_have_a_button(client: FlaskClient, percent: dict[str, Any]) -> None:
    page = decide(client, percent | {"loan_amnt": 12, "dti": 1e7})
    assert element(page, "late") == "check the values first"
    assert re.findall(r'name="suggested\.(\w+)"\s+value="([^"]+)"', page) == [
        ("loan_amnt", "12000"),
        ("revol_util", "0.4"),
    ]
    assert "Is it in another unit?" in element(page, "questions")


def test_an_absurd_value_gets_no_green_no_either(client: FlaskClient, loan: dict[str, Any]) -> None:
    page = decide(client, loan | {"annual_inc": "1e15"})
    assert "Is it in another unit?" in element(page, "questions")
    assert "text-bg-success" not in page
    assert "suggested." not in page


def test_a_value_near_the_range_is_decided_with_a_warning(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    page = decide(client, loan | {"revol_util": 1.5})
    assert 'id="questions"' not in page
    assert element(page, "late") in ("Yes", "No")
    assert "150 % is outside the range" in element(page, "warnings")
