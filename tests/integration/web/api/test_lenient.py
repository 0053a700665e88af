"""Predictions with `?lenient=true`: values as people write them, and what was understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.ledgers import url_of
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.ledger.audit.replay import Replay
from peerloan.ledger.queries import stream_decisions
from peerloan.registry import Store
from peerloan.settings import Settings

PATH = "/v1/predictions"
LENIENT = f"{PATH}?lenient=true"
LOAN: dict[str, Any] = {
    "loan_amnt": 12000,
    "int_rate": 0.1306,
    "purpose": "debt_consolidation",
    "grade": "B",
    "annual_inc": 65000,
    "revol_util": 0.4,
    "emp_length": None,
    "dti": 14.46,
    "delinq_2yrs": 0,
    "home_ownership": "RENT",
    "loan_id": "L-1",
}
SPELLED: dict[str, Any] = {
    "Loan amount": "12,000",
    "int_rate": "13.06%",
    "purpose": "Debt consolidation",
    "grade": " b ",
    "annual_inc": "$65,000",
    "revol_util": "0,4",
    "emp_length": "N/A",
    "dti": "14.46",
    "delinq_2yrs": 0,
    "home_ownership": "RENT",
    "loan_id": "L-1",
}
UNDERSTOOD = [
    {"field": "loan_amnt", "given": "Loan amount", "read_as": "loan_amnt"},
    {"field": "loan_amnt", "given": "12,000", "read_as": 12000},
    {"field": "int_rate", "given": "13.06%", "read_as": 0.1306},
    {"field": "purpose", "given": "Debt consolidation", "read_as": "debt_consolidation"},
    {"field": "grade", "given": " b ", "read_as": "B"},
    {"field": "annual_inc", "given": "$65,000", "read_as": 65000},
    {"field": "revol_util", "given": "0,4", "read_as": 0.4},
    {"field": "emp_length", "given": "N/A", "read_as": None},
    {"field": "dti", "given": "14.46", "read_as": 14.46},
]


@pytest.fixture
def client(store: Store, version_of: VersionOf, database: Database, tmp_path: Path) -> FlaskClient:
    """A service with a ledger."""
    store.promote(version_of("additive"), "the first", first=True)
    chosen = Settings(store.root, tmp_path / "tokens", url_of(database))
    return create_app(chosen, on_loopback=True).test_client()


def post(client: FlaskClient, path: str, body: object, status: int = 200, key: str = "") -> Any:
    """The JSON of the answer to a body: JSON text, or a value."""
    data = body if isinstance(body, str) else json.dumps(body)
    head = {"Idempotency-Key": key} if key else {}
    answer = client.post(path, data=data, content_type="application/json", headers=head)
    assert answer.status_code == status, answer.text
    return answer.json


def errors(client: FlaskClient, path: str, body: object) -> dict[str, dict[str, Any]]:
    """The errors of a refused body, by field."""
    return {each["field"]: each for each in post(client, path, body, 422)["errors"]}


def without_ids(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction without what only lenient ones have, and without its id."""
    return {name: prediction[name] for name in prediction if name not in ("id", "understood")}


def test_a_loan_as_people_write_it_is_decided_on_and_explained(client: FlaskClient) -> None:
    strict = post(client, PATH, LOAN)
    lenient = post(client, LENIENT, SPELLED)

    assert lenient["understood"] == UNDERSTOOD
    assert without_ids(lenient) == without_ids(strict)
    assert "understood" not in strict
    assert "understood" not in post(client, f"{PATH}?lenient=false", LOAN)


def test_nothing_is_listed_if_nothing_was_respelled(client: FlaskClient) -> None:
    assert post(client, LENIENT, LOAN)["understood"] == []


def test_each_loan_of_a_list_says_how_it_was_read(client: FlaskClient) -> None:
    answers = post(client, LENIENT, [LOAN, SPELLED, LOAN | {"dti": "1e1"}])["predictions"]

    assert [each["understood"] for each in answers] == [
        [],
        UNDERSTOOD,
        [{"field": "dti", "given": "1e1", "read_as": 10}],
    ]
    assert without_ids(answers[0]) == without_ids(answers[1])
    assert post(client, LENIENT, []) == {"predictions": []}


def test_nan_is_a_missing_value(client: FlaskClient) -> None:
    body = json.dumps(LOAN | {"revol_util": float("nan")})

    assert post(client, LENIENT, body)["understood"] == [
        {"field": "revol_util", "given": "NaN", "read_as": None}
    ]
    assert "NaN" in errors(client, PATH, body)["revol_util"]["given"]


def test_a_what_if_may_be_lenient_too(client: FlaskClient, database: Database) -> None:
    answer = post(client, f"{LENIENT}&what_if=true", SPELLED)

    assert (answer["what_if"], answer["understood"]) == (True, UNDERSTOOD)
    assert list(stream_decisions(database)) == []


def test_the_ledger_has_what_was_read_and_replays_it(
    client: FlaskClient, store: Store, database: Database
) -> None:
    post(client, LENIENT, SPELLED)
    post(client, LENIENT, [SPELLED, SPELLED | {"revol_util": "NaN", "grade": "c"}])

    kept = [each for some in stream_decisions(database) for each in some]
    assert [json.loads(each.inputs) for each in kept] == [
        LOAN,
        LOAN,
        LOAN | {"revol_util": None, "grade": "C"},
    ]
    replay = Replay(store)
    for some in stream_decisions(database):
        replay.add(some)
    assert (replay.report.identical, replay.report.decisions) == (3, 3)


def test_a_repeated_request_gets_its_first_answer_with_what_was_understood(
    client: FlaskClient,
) -> None:
    for body, key in ((SPELLED, "k1"), ([LOAN, SPELLED], "k2")):
        first = post(client, LENIENT, body, key=key)
        assert post(client, LENIENT, body, key=key) == first
    post(client, PATH, LOAN, 422, key="k1")


def test_what_is_unclear_is_refused_by_the_name_of_the_character(client: FlaskClient) -> None:
    wrong = LOAN | {"int_rate": "$0.13", "loan_amnt": "12%", "dti": "1,2,3", "grade": "Z"}
    found = errors(client, LENIENT, [LOAN, wrong | {"Debt to income": 5, "delinq_2yrs": "0,5"}])

    assert all(each["loan"] == 1 for each in found.values())
    assert "without '$'" in found["int_rate"]["expected"]
    assert "without '%'" in found["loan_amnt"]["expected"]
    assert found["grade"]["given"] == "'Z'"
    assert found["delinq_2yrs"]["given"] == "'0,5', read as 0.5"
    assert found["dti"] == {
        "loan": 1,
        "field": "dti",
        "expected": "one name for this field",
        "given": "'dti' and 'Debt to income'",
    }


def test_columns_are_read_as_lists_are(client: FlaskClient) -> None:
    columns = {name: [value] * 2 for name, value in SPELLED.items()}
    answer = post(client, LENIENT, columns, key="k1")

    assert [each["understood"] for each in answer["predictions"]] == [UNDERSTOOD] * 2
    assert post(client, LENIENT, columns, key="k1") == answer
    assert without_ids(answer["predictions"][1]) == without_ids(post(client, PATH, LOAN))
    assert errors(client, LENIENT, columns | {"loan_amnt": [1, 2]})["loan_amnt"]["given"] == (
        "'Loan amount' and 'loan_amnt'"
    )
    assert errors(client, LENIENT, columns | {"dti": ["1"]})["dti"]["given"] == "1 value"
    assert errors(client, LENIENT, columns | {"dti": ["5", "x"]})["dti"]["loan"] == 1


def test_other_values_are_refused(client: FlaskClient) -> None:
    assert "expected a loan" in post(client, LENIENT, "5", 400)["detail"]
    assert list(errors(client, LENIENT, [5])) == ["(loan)"]
    assert "KServe" in post(client, LENIENT, {"instances": [LOAN]}, 422)["detail"]


def test_without_the_option_the_api_is_strict_and_names_it(client: FlaskClient) -> None:
    found = errors(client, PATH, SPELLED | {"delinq_2yrs": "many", "home_ownership": 5})

    readable = {"int_rate", "grade", "annual_inc", "revol_util", "emp_length", "dti", "loan_amnt"}
    assert {
        name for name, each in found.items() if each["expected"].endswith("add ?lenient=true)")
    } == readable
    assert "without quotes: 0.1306, or add ?lenient=true" in found["int_rate"]["expected"]
    renamed = {("DTI" if name == "dti" else name): value for name, value in LOAN.items()}
    expected = errors(client, PATH, renamed)["dti"]["expected"]
    assert expected.endswith("(rename 'DTI' to 'dti', or add ?lenient=true)")
    assert "lenient" not in str(errors(client, PATH, LOAN | {"dti": "1,2,3", "loan_amnt": "-1"}))


def test_where_the_option_does_not_exist_it_is_not_named(client: FlaskClient) -> None:
    inputs = [
        {"name": name, "shape": [1], "datatype": "BYTES", "data": ["13.06%"]}
        for name in ("int_rate", "grade")
    ]

    answer = post(client, "/v2/models/late-payments/infer", {"inputs": inputs}, 400)
    assert "int_rate" in answer["error"]
    assert "lenient" not in answer["error"]
